/**
 * A guest whose cards lead to the host: host-only, and a bridge that the test makes. It runs
 * detached, and is talked to by `layerdisk console` on a terminal.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import type { VmView } from '../../src/control/protocol.js';
import { startDaemon } from '../support/daemon.js';
import { bootArguments, cannotBoot, TestGuest } from '../support/guest.js';
import { tool } from '../support/run-program.js';

const BRIDGE = `ldtest${process.pid}`.slice(0, 15);

/** A network that this host has no address in. */
function freeNetwork(): string {
  const used = spawnSync('ip', ['-o', 'route'], { encoding: 'utf8' }).stdout;
  const free = ['198.18.77', '198.19.77', '172.31.77'].find((prefix) => !used.includes(prefix));
  if (free === undefined) throw new Error(`no network is free:\n${used}`);
  return free;
}

/** Why this host makes no bridges for us; false where it does. */
function cannotBridge(): string | false {
  const cannot = cannotBoot();
  if (cannot !== false) return cannot;
  if (!existsSync('/dev/net/tun')) return 'no /dev/net/tun';
  const made = spawnSync('ip', ['link', 'add', BRIDGE, 'type', 'bridge']);
  if (made.status !== 0) return `no bridge can be made here: ${made.stderr}`;
  spawnSync('ip', ['link', 'delete', BRIDGE]);
  return false;
}

/** What hangs on a bridge. */
function ports(bridge: string): string[] {
  return readdirSync(`/sys/class/net/${bridge}/brif`);
}

/** Waits for a shell that nobody heard booting; all that it was asked is answered then. */
async function shellOf(guest: TestGuest): Promise<void> {
  const from = guest.output.length;
  let asked = 0;
  for (let isUp = false; !isUp; isUp = /@up/.test(guest.output.slice(from))) {
    asked += 1;
    guest.type(`echo '@''up ${asked}.'`);
    await Promise.race([sleep(500), guest.waitFor(/@up/, from)]);
  }
  await guest.waitFor(new RegExp(`@up ${asked}\\.`), from);
}

t.test('cards that lead to the host, and the console', { skip: cannotBridge() }, async (t) => {
  const daemon = await startDaemon(t);
  await tool('ip', ['link', 'add', BRIDGE, 'type', 'bridge']);
  t.teardown(() => tool('ip', ['link', 'delete', BRIDGE]));
  const bridged = freeNetwork();
  await tool('ip', ['address', 'add', `${bridged}.1/24`, 'dev', BRIDGE]);
  await tool('ip', ['link', 'set', BRIDGE, 'up']);
  const nics = ['--nic', 'host-only,network=lab', '--nic', `bridged,network=${BRIDGE}`];
  await daemon.ok('create', 'net', '--disk', '8M', '--memory', '96M', ...nics);

  const started = await daemon.cli(['run', 'net', '--detach', '--', ...bootArguments()]);
  t.teardown(() => daemon.cli(['stop', 'net', '--force']));
  t.equal(started.code, 0, started.stderr);
  const note = /NIC 0 \(host-only\): the host is (\S+)\.1\/24 on (ldho\w+)/.exec(started.stderr);
  const [, prefix = '', hostOnly = ''] = note ?? [];
  t.teardown(() => tool('ip', ['link', 'delete', hostOnly]));
  t.equal(ports(hostOnly).length, 1, 'the first card is on the bridge of the network');
  t.equal(ports(BRIDGE).length, 1, 'the second one on the bridge of the host');

  const guest = await TestGuest.connect(t, daemon, 'net');
  await shellOf(guest);
  const { nics: cards } = await daemon.json<VmView>('info', 'net');
  for (const [index, { mac }] of cards.entries()) {
    t.equal(await guest.ask(`cat /sys/class/net/eth${index}/address`), mac, `card ${index}`);
  }
  const ping = async (nic: string, network: string) => {
    await guest.ask(`ip link set ${nic} up; ip addr add ${network}.2/24 dev ${nic}`);
    const said = await guest.ask(`ping -c 3 -w 20 ${network}.1 >/dev/null && echo reached`);
    t.match(said, /reached/, `the guest reaches the host over ${nic}`);
  };
  await ping('eth0', prefix);
  await ping('eth1', bridged);
  const back = spawnSync('ping', ['-c', '1', '-w', '20', `${bridged}.2`]);
  if (back.error === undefined) t.equal(back.status, 0, 'the host reaches the guest');

  await t.test('leaving the console', async (t) => {
    guest.press('\x1d');
    t.equal(await guest.ended, 0, 'ctrl-] leaves it');
    const again = await TestGuest.connect(t, daemon, 'net');
    await shellOf(again);
    t.equal(await again.ask('cat /sys/class/net/eth0/operstate'), 'up', 'the guest goes on');
    again.type('poweroff -f');
    t.equal(await again.ended, 0, 'the end of the guest is the end of its console');
  });
  t.equal((await daemon.json<VmView>('info', 'net')).guest, undefined, 'it runs no more');
  t.same(ports(BRIDGE), [], 'its cable is gone');
  t.ok(existsSync(`/sys/class/net/${hostOnly}`), 'the bridge of the network stays');
});
