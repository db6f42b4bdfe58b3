/** Where things are: flag, environment, configuration file, default, in this order. */
import { userInfo } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import {
  type Caller,
  configFile,
  defaultPlaces,
  placesFromEnvironment,
  settlePlaces,
} from '../../src/common/places.js';

const root: Caller = { uid: 0, env: { HOME: '/people/root' }, cwd: '/data' };
const user: Caller = {
  uid: 1000,
  env: { HOME: '/people/u', XDG_RUNTIME_DIR: '/run/user/1000' },
  cwd: '/people/u/here',
};

t.test('defaults', async (t) => {
  t.same(defaultPlaces(root), {
    store: '/var/lib/layerdisk',
    socket: '/run/layerdisk/control.sock',
    mountpoint: '/run/layerdisk/mnt',
  });
  t.equal(configFile(root), '/etc/layerdisk/config.json');
  t.same(defaultPlaces(user), {
    store: '/people/u/.local/share/layerdisk',
    socket: '/run/user/1000/layerdisk/control.sock',
    mountpoint: '/run/user/1000/layerdisk/mnt',
  });
  t.equal(configFile(user), '/people/u/.config/layerdisk/config.json');
  const env = { HOME: '/h', XDG_DATA_HOME: '/srv', XDG_CONFIG_HOME: 'relative' };
  t.same(defaultPlaces({ ...user, env }), {
    store: '/srv/layerdisk',
    socket: '/srv/layerdisk/control.sock',
    mountpoint: '/srv/layerdisk/mnt',
  });
  t.equal(configFile({ ...user, env }), '/h/.config/layerdisk/config.json', 'relative: ignored');
});

t.test('a home that is not said, or not where it is', async (t) => {
  const { homedir } = userInfo();
  for (const HOME of [undefined, '', 'relative']) {
    const caller: Caller = { ...user, env: { HOME } };
    t.equal(defaultPlaces(caller).store, join(homedir, '.local/share/layerdisk'), String(HOME));
    t.equal(configFile(caller), join(homedir, '.config/layerdisk/config.json'), String(HOME));
  }
});

t.test(
  'a user whom no table knows',
  { skip: process.geteuid?.() !== 0 && 'only root can be somebody else' },
  async (t) => {
    const caller: Caller = { ...user, env: {} };
    process.seteuid?.(4021);
    t.teardown(() => process.seteuid?.(0));
    t.equal(configFile(caller), '/.config/layerdisk/config.json');
    t.equal(settlePlaces([{ store: '/s' }], caller).store, '/s', 'needs no home for it');
  },
);

t.test('sources, strongest first', async (t) => {
  const settle = (...sources: object[]) => settlePlaces(sources, root);
  t.same(settle(), defaultPlaces(root));
  t.same(
    settle({ store: '/s' }),
    { store: '/s', socket: '/s/control.sock', mountpoint: '/s/mnt' },
    'a store of its own has all inside',
  );
  t.same(settle({ store: '/var/lib/layerdisk/' }), defaultPlaces(root), 'the default one, said');
  t.match(settle({ store: 'rel/../s' }), { store: '/data/s', socket: '/data/s/control.sock' });
  t.match(settle({ socket: 'x.sock' }), { store: '/var/lib/layerdisk', socket: '/data/x.sock' });
  t.match(settle({}, { store: '/env', socket: '/env.sock' }, { store: '/file' }), {
    store: '/env',
    socket: '/env.sock',
    mountpoint: '/env/mnt',
  });
  t.match(
    settle({ store: '/flag' }, { socket: '/env.sock' }, { mountpoint: '/file/mnt' }),
    { store: '/flag', socket: '/flag/control.sock', mountpoint: '/flag/mnt' },
    'a weaker source speaks of another store',
  );
  t.match(
    settle({ socket: '/flag.sock' }, { store: '/env' }),
    { store: '/env', socket: '/flag.sock' },
    'a stronger one does not',
  );
});

t.test('the environment', async (t) => {
  const env = { LAYERDISK_STORE: '/s', LAYERDISK_SOCKET: '' };
  t.same(placesFromEnvironment({ ...root, env }), { store: '/s' });
});

t.test('places where nobody can make a folder', async (t) => {
  for (const store of ['/proc/layerdisk', '/sys', '/x/../proc/1/fd/3']) {
    t.throws(
      () => settlePlaces([{ store }], root),
      { code: 'usage', message: /only shows/ },
      store,
    );
  }
  t.equal(settlePlaces([{ store: '/processes' }], root).store, '/processes');
});

t.test('a socket path that is too long', async (t) => {
  const store = `/${'d'.repeat(94)}`;
  t.throws(() => settlePlaces([{ store }], root), { code: 'usage', message: /108 bytes long/ });
  t.match(settlePlaces([{ store: store.slice(0, -1) }], root).socket, /control\.sock$/);
  t.match(settlePlaces([{ store, socket: '/s' }], root), { socket: '/s' });
  t.throws(() => settlePlaces([{ socket: `/${'é'.repeat(54)}` }], root), { code: 'usage' });
});
