/** `events` on the socket: several listeners, slow ones, cancelled ones, and ones that go. */
import t from 'tap';
import { connect } from '../../src/control/client.js';
import type { CallContext, EventView } from '../../src/control/protocol.js';
import { eventually } from '../support/takeover.js';
import { recordingHandlers, STATUS } from './recording-handlers.js';
import { RawClient, serve } from './socket-fixture.js';

const KiB = 1024;

interface Listener extends CallContext {
  end(): void;
}

function eventOf(number: number, filler = ''): EventView {
  const text = `event ${number}${filler}`;
  return { time: '2026-01-02T03:04:05.678Z', event: 'vm.created', text, vm: `vm${number}` };
}

/** Handlers whose `events` goes on until its listener is ended. */
function listening(overrides: Parameters<typeof recordingHandlers>[0] = {}) {
  const listeners: Listener[] = [];
  const { handlers } = recordingHandlers({
    ...overrides,
    events: (_, context) =>
      new Promise((done, fail) => {
        listeners.push({ ...context, end: () => done({ end: 'stopped' }) });
        context.signal.addEventListener('abort', () => fail(context.signal.reason));
      }),
  });
  const count = (wanted: number) =>
    eventually(`${wanted} listeners`, () => (listeners.length === wanted ? true : undefined));
  return { handlers, listeners, count };
}

t.test('every listener gets every event in order, and the answer last', async (t) => {
  const { handlers, listeners, count } = listening();
  const { path } = await serve(t, handlers);
  const client = await connect(path);
  const heard: EventView[][] = [[], [], []];
  const others = await connect(path);
  const calls = heard.map((list, index) =>
    (index === 0 ? others : client).call('events', {}, { onEvent: (event) => list.push(event) }),
  );
  await count(3);
  for (let number = 0; number < 100; number++) {
    for (const listener of listeners) listener.event(eventOf(number));
  }
  t.same(await client.call('daemon.status', {}), STATUS, 'others are answered meanwhile');
  for (const listener of listeners) listener.end();
  t.same(await Promise.all(calls), Array(3).fill({ end: 'stopped' }));
  const all = Array.from({ length: 100 }, (_, number) => eventOf(number));
  t.same(heard, [all, all, all]);
  client.close();
  others.close();
});

t.test('a reader that stops loses events, hears how many, and is not dropped', async (t) => {
  const { handlers, listeners, count } = listening();
  const fixture = await serve(t, handlers, { stallMs: 10, eventBytes: 128 * KiB });
  const slow = new RawClient(fixture.path);
  slow.request(7, 'events');
  await count(1);
  slow.socket.pause();
  const sent = 20_000;
  for (let number = 0; number < sent; number++) {
    listeners[0]?.event(eventOf(number, 'x'.repeat(KiB)));
    if (number % 1000 === 0) await new Promise((done) => setTimeout(done, 1));
  }
  // The clock of the server looks each second.
  await new Promise((done) => setTimeout(done, 2500));
  t.same(fixture.log, [], 'not dropped');
  const other = await connect(fixture.path);
  t.same(await other.call('daemon.status', {}), STATUS, 'nobody else notices');
  other.close();

  slow.socket.resume();
  const heard: EventView[] = [];
  const next = async () => ((await slow.next()).params as { event: EventView }).event;
  do heard.push(await next());
  while (heard.at(-1)?.event !== 'lost');
  const lost = heard.at(-1);
  t.equal(heard.length - 1 + (lost?.lost ?? 0), sent, 'none is unaccounted for');
  t.ok(heard.length < 2000, `little is kept for it: ${heard.length} events`);
  t.equal(lost?.text, `${lost?.lost} events were lost: they were not read`);
  t.same(
    heard.slice(0, -1).map(({ vm }) => vm),
    heard.slice(0, -1).map((_, number) => `vm${number}`),
    'what came is the beginning, without a hole',
  );
  listeners[0]?.event(eventOf(sent));
  t.equal((await next()).vm, `vm${sent}`, 'and it goes on');
  slow.destroy();
});

t.test('what was lost is said before the answer, too', async (t) => {
  const { handlers, listeners, count } = listening();
  const fixture = await serve(t, handlers, { eventBytes: 128 * KiB });
  const slow = new RawClient(fixture.path);
  slow.request(7, 'events');
  await count(1);
  slow.socket.pause();
  for (let number = 0; number < 5000; number++) {
    listeners[0]?.event(eventOf(number, 'x'.repeat(KiB)));
  }
  listeners[0]?.end();
  slow.socket.resume();
  let last = await slow.next();
  for (let line = await slow.next(); line.result === undefined; line = await slow.next()) {
    last = line;
  }
  t.match(last, { method: 'event', params: { id: 7, event: { event: 'lost', lost: Number } } });
  slow.destroy();
});

t.test('answers that nobody reads end a listener as everybody else', async (t) => {
  const filler = 'x'.repeat(2 * KiB * KiB);
  const { handlers, listeners, count } = listening({ info: async () => ({ filler }) });
  const fixture = await serve(t, handlers, { stallMs: 10 });
  const client = new RawClient(fixture.path);
  client.request(1, 'events');
  await count(1);
  client.socket.pause();
  client.request(2, 'info', { vm: 'web' });
  await eventually('dropped', () => (listeners[0]?.signal.aborted === true ? true : undefined));
  t.match(fixture.log, [{ level: 'warn', message: /does not read its answers/ }]);
  client.destroy();
});

t.test('cancel ends it, and nothing comes any more', async (t) => {
  const { handlers, listeners, count } = listening();
  const { path, log } = await serve(t, handlers);
  const client = await connect(path);
  const controller = new AbortController();
  const heard: EventView[] = [];
  const call = client.call(
    'events',
    {},
    { signal: controller.signal, onEvent: (event) => heard.push(event) },
  );
  await count(1);
  listeners[0]?.event(eventOf(0));
  controller.abort();
  await t.rejects(call, { code: 'interrupted', message: 'events was cancelled' });
  listeners[0]?.event(eventOf(1));
  t.same(await client.call('daemon.status', {}), STATUS);
  t.same(heard, [eventOf(0)]);
  t.same(log, []);
  client.close();
});

t.test('a client that goes is noticed, also one that only reads', async (t) => {
  const { handlers, listeners, count } = listening();
  const { path, log } = await serve(t, handlers);
  const client = new RawClient(path);
  client.request(1, 'events');
  const reader = new RawClient(path);
  reader.request(1, 'events');
  reader.socket.end();
  await count(2);
  const [, readers] = listeners;
  readers?.event(eventOf(0));
  t.match(await reader.next(), { params: { event: eventOf(0) } }, 'as from `nc -N`');
  client.destroy();
  reader.destroy();
  await eventually('both are noticed', () =>
    listeners.every(({ signal }) => signal.aborted) ? true : undefined,
  );
  t.same(log, []);
});

t.test('the daemon that closes its socket cancels it', async (t) => {
  const { handlers, count } = listening();
  const { path, close } = await serve(t, handlers);
  const client = await connect(path);
  const call = client.call('events', {});
  await count(1);
  const closed = close();
  await t.rejects(call, { code: 'interrupted' });
  await closed;
});

t.test('events that are none are passed over', async (t) => {
  const { handlers, listeners, count } = listening();
  const { path } = await serve(t, handlers);
  const client = await connect(path);
  const heard: EventView[] = [];
  const call = client.call('events', {}, { onEvent: (event) => heard.push(event) });
  await count(1);
  listeners[0]?.event({ time: 5, event: 'x', text: 'y' } as unknown as EventView);
  listeners[0]?.event({ ...eventOf(0), text: 'two\nlines \u001b[31m' });
  listeners[0]?.end();
  await call;
  t.same(
    heard.map(({ text }) => text),
    ['two lines  [31m'],
  );
  client.close();
});
