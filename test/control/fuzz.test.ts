/**
 * Random messages: rubbish, requests with a few bytes changed, valid ones with wrong parameters. A
 * connection is answered or closed, no handler ever sees what its schema does not allow, and a good
 * client is served as before.
 */
import t, { type Test } from 'tap';
import { connect } from '../../src/control/client.js';
import { checkParams } from '../../src/control/schemas.js';
import { createRandom, newSeed, type Random } from '../support/random.js';
import { Tally, triesOr } from '../torture/tally.js';
import { recordingHandlers, STATUS } from './recording-handlers.js';
import { type Fixture, RawClient, serve } from './socket-fixture.js';

const MESSAGES = triesOr(4000);
/** Messages on one connection. */
const BATCH = 200;
/** At once, with nothing to say; more than the server lets stay. */
const CROWD = 1000;
const CROWDS = MESSAGES > 100_000 ? 10 : 1;

const METHODS = Object.keys(recordingHandlers().handlers);
const WORDS = ['web', 'disk0', '..', '/etc/passwd', '', 'x'.repeat(300), '\u0000', '__proto__'];
const KEYS = ['vm', 'snapshot', 'name', 'disks', 'path', 'size', 'discard', 'mode', 'constructor'];

function randomValue(random: Random, depth = 0): unknown {
  const dice = random.below(depth > 3 ? 6 : 8);
  if (dice === 0) return random.pick(WORDS);
  if (dice === 1) return random.below(2 ** 31) * random.pick([1, -1, 0.5, 2 ** 40]);
  if (dice === 2) return null;
  if (dice === 3) return random.below(2) === 0;
  if (dice < 6) return random.bytes(random.below(20)).toString('latin1');
  const count = random.below(4);
  const values = Array.from({ length: count }, () => randomValue(random, depth + 1));
  if (dice === 6) return values;
  return Object.fromEntries(values.map((value) => [random.pick(KEYS), value]));
}

function rightRequest(random: Random): object {
  const method = random.pick(['list', 'info', 'snapshot.list', 'daemon.status']);
  const params = /info|snapshot/.test(method) ? { vm: 'web' } : {};
  return { jsonrpc: '2.0', id: random.below(1000), method, params };
}

/** One line; what it asks for may even be right. */
function randomLine(random: Random): Buffer {
  const method = random.pick(METHODS);
  if (random.below(4) === 0) return Buffer.from(JSON.stringify(rightRequest(random)));
  const params = Object.fromEntries(
    Array.from({ length: random.below(5) }, () => [random.pick(KEYS), randomValue(random)]),
  );
  const request = { jsonrpc: '2.0', id: random.below(1000), method, params };
  const bytes = Buffer.from(JSON.stringify(random.below(8) === 0 ? randomValue(random) : request));
  const dice = random.below(4);
  // A line feed would make two messages of it, a high byte is no UTF-8: both have their tests.
  for (let count = dice === 0 ? 1 + random.below(4) : 0; count > 0; count -= 1) {
    bytes[random.below(bytes.length)] = 32 + random.below(95);
  }
  return dice === 1 ? bytes.subarray(0, random.below(bytes.length)) : bytes;
}

/** Ends when everything was answered, or the connection closed; never, when neither happens. */
async function sendBatch(fixture: Fixture, random: Random): Promise<void> {
  const client = new RawClient(fixture.path);
  for (let count = 0; count < BATCH; count += 1) {
    client.send(Buffer.concat([randomLine(random), Buffer.from('\n')]));
  }
  client.request('last', 'list');
  const answered = (async () => {
    for (;;) if ((await client.next()).id === 'last') return;
  })();
  // A connection that was closed on it has been answered, too.
  await Promise.race([answered.catch(() => undefined), client.closed]);
  client.destroy();
}

async function isServed(t: Test, fixture: Fixture): Promise<boolean> {
  const client = await connect(fixture.path);
  const status = await client.call('daemon.status', {});
  client.close();
  return t.same(status, STATUS);
}

t.test('random messages', async (t) => {
  const seed = newSeed();
  t.comment(`LAYERDISK_SEED=${seed}`);
  const random = createRandom(seed);
  const tally = new Tally(t);
  const { handlers, calls } = recordingHandlers();
  const fixture = await serve(t, handlers);
  let handled = 0;
  for (let sent = 0; sent < MESSAGES; sent += BATCH) {
    await sendBatch(fixture, random);
    tally.tried(BATCH);
    for (const { method, params } of calls) {
      try {
        checkParams(method, params);
      } catch {
        tally.lost(`${method} saw ${JSON.stringify(params)}`);
      }
    }
    handled += calls.length;
    calls.length = 0;
    if (sent % (50 * BATCH) === 0 && !(await isServed(t, fixture))) tally.lost('nobody is served');
  }
  t.ok(handled > MESSAGES / BATCH, 'some were right, and done');
  tally.print({ handled });
});

t.test('many more connections than there is room for', async (t) => {
  const { handlers } = recordingHandlers();
  const fixture = await serve(t, handlers);
  for (let round = 0; round < CROWDS; round += 1) {
    const crowd = Array.from({ length: CROWD }, () => new RawClient(fixture.path));
    // Where the queue of the kernel is full, it refuses.
    const connected = (client: RawClient) =>
      new Promise<void>((done) => client.socket.once('connect', () => done()));
    await Promise.all(crowd.map((client) => Promise.race([connected(client), client.closed])));
    await isServed(t, fixture);
    for (const client of crowd) client.destroy();
  }
});
