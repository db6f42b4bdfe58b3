/** Who hears what when: events of the hub, its end, and guests that are looked for. */
import t from 'tap';
import { DiskError } from '../../src/common/errors.js';
import type { EventView, NewEvent } from '../../src/control/protocol.js';
import { EventHub } from '../../src/daemon/event-hub.js';
import { GuestWatch } from '../../src/daemon/guest-watch.js';
import type { RunningGuest } from '../../src/daemon/guests.js';
import { damagedVmEvent, damageEvent, spaceEvent } from '../../src/daemon/warnings.js';
import { codeOf } from '../support/vm-world.js';

function listener() {
  const events: EventView[] = [];
  const controller = new AbortController();
  const { signal } = controller;
  const names = () => events.map(({ event }) => event);
  return { events, names, controller, signal, event: (event: EventView) => events.push(event) };
}

function newHub(standing: NewEvent[] = []): EventHub {
  return new EventHub({ standing: () => standing, onListener: () => undefined });
}

const CREATED: NewEvent = { event: 'vm.created', text: 'created web', vm: 'web' };

t.test('each listener from its own beginning on, until it is cancelled', async (t) => {
  const hub = newHub();
  t.notOk(hub.isHeard);
  hub.publish(CREATED);
  const first = listener();
  const second = listener();
  const calls = [hub.listen(first)];
  hub.publish(CREATED);
  calls.push(hub.listen(second));
  hub.publish(CREATED);
  first.controller.abort();
  t.equal(await codeOf(calls[0]!), 'interrupted');
  hub.publish(CREATED);
  t.same(first.names(), ['listening', 'vm.created', 'vm.created']);
  t.same(second.names(), ['listening', 'vm.created', 'vm.created']);
  t.equal(Object.keys(first.events[1] ?? {})[0], 'time');
  second.controller.abort();
  t.equal(await codeOf(calls[1]!), 'interrupted');
  t.notOk(hub.isHeard);
  const late = listener();
  late.controller.abort();
  t.equal(await codeOf(hub.listen(late)), 'interrupted', 'cancelled before it began');
});

t.test('warnings that stand are told to who comes', async (t) => {
  const problem = new DiskError('damaged', 'its manifest is gone');
  const facts = { free: 2 ** 30, total: 2 ** 34 };
  const hub = newHub([damagedVmEvent({ name: 'web', problem }), spaceEvent('low', facts)]);
  const one = listener();
  const call = hub.listen(one);
  t.match(one.events, [
    { event: 'listening', pid: process.pid },
    { event: 'vm.damaged', vm: 'web', problem: 'its manifest is gone', standing: true },
    { event: 'space.low', state: 'low', freeBytes: 2 ** 30, totalBytes: 2 ** 34, standing: true },
  ]);
  one.controller.abort();
  t.equal(await codeOf(call), 'interrupted');
});

t.test('the end comes last, and nobody can listen after it', async (t) => {
  for (const [end, name] of [
    ['stopped', 'daemon.stopping'],
    ['restart', 'daemon.restarting'],
  ] as const) {
    const hub = newHub();
    const one = listener();
    const call = hub.listen(one);
    hub.end(end);
    hub.end('stopped');
    t.equal(await call, end);
    t.same(one.names(), ['listening', name]);
    t.equal(await hub.listen(listener()), end);
  }
});

t.test('listeners leave connections to others', async (t) => {
  const hub = newHub();
  const all = Array.from({ length: 64 }, () => hub.listen(listener()));
  t.equal(await codeOf(hub.listen(listener())), 'busy');
  hub.end('stopped');
  t.equal((await Promise.all(all)).length, 64);
});

t.test('guests that start and end while somebody listens', async (t) => {
  const running = new Map<number, RunningGuest>([[1, { pid: 10, started: 'then' }]]);
  const told: NewEvent[] = [];
  let isHeard = false;
  let problem = '';
  const watch = new GuestWatch({
    running: () => {
      if (problem !== '') throw new Error(problem);
      return new Map(running);
    },
    isHeard: () => isHeard,
    nameOf: (number) => (number === 3 ? undefined : `vm${number}`),
    publish: (event) => told.push(event),
    onProblem: (what, error) => told.push({ event: 'damage.found', text: `${what} ${error}` }),
  });
  const look = () => {
    watch.look();
    return told.splice(0);
  };
  running.set(2, { pid: 20, started: 'then' });
  t.same(look(), [], 'nobody listens');
  watch.begin();
  isHeard = true;
  t.same(look(), [], 'those that run are nothing new');
  running.set(3, { pid: 30, started: 'now' });
  running.delete(2);
  t.same(look(), [
    { event: 'guest.stopped', text: 'the guest of vm2 has ended', vm: 'vm2', pid: 20 },
    { event: 'guest.started', text: 'the guest of a VM that is gone runs, pid 30', pid: 30 },
  ]);
  running.set(1, { pid: 10, started: 'again' });
  t.match(look(), [{ event: 'guest.stopped' }, { event: 'guest.started', vm: 'vm1', pid: 10 }]);
  problem = 'EIO';
  t.match(look(), [{ text: /cannot see which guests run/ }]);
  problem = '';
  t.same(look(), [], 'what was known is known still');
});

t.test('which errors in the background are damage', async (t) => {
  t.equal(damageEvent(new Error('a bug')), undefined);
  t.equal(damageEvent(new DiskError('failed', 'no room')), undefined);
  t.match(damageEvent(new DiskError('damaged', 'slot 7')), {
    event: 'damage.found',
    problem: 'slot 7',
  });
});
