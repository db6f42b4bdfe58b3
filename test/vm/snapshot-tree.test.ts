/** The tree of snapshots as pure functions: shape after every change. */
import { randomUUID } from 'node:crypto';
import t from 'tap';
import {
  childrenOf,
  findSnapshot,
  freeSnapshotName,
  withoutSnapshot,
  withRenamedSnapshot,
  withSnapshot,
} from '../../src/vm/snapshot-tree.js';
import type { Manifest, SnapshotRecord } from '../../src/vm/store/manifest.js';
import { edgesOf } from '../support/vm-world.js';

type Tree = Pick<Manifest, 'snapshots' | 'current'>;

const record = (name: string): SnapshotRecord => ({
  id: randomUUID(),
  name,
  node: 16,
  created: '2026-01-02T03:04:05Z',
  parent: null,
  consistency: 'consistent',
  vcpus: 1,
  memory: 1,
  nics: [],
  disks: [],
});

/** Takes snapshots one after the other. */
function grow(tree: Tree, ...names: string[]): Tree {
  return names.reduce((grown, name) => withSnapshot(grown, record(name)), tree);
}

const shape = (tree: Tree) => edgesOf(tree as Manifest).join(' ');
const idOf = (tree: Tree, name: string) => findSnapshot('web', tree, name).id;

/**
 *     a -- b -- c        b was restored before d was taken
 *           \
 *            d -- *
 */
function branched(): Tree {
  const line = grow({ snapshots: [], current: null }, 'a', 'b', 'c');
  return grow({ ...line, current: idOf(line, 'b') }, 'd');
}

t.test('growing and branching', async (t) => {
  const tree = branched();
  t.equal(shape(tree), '*: d a: - b: a c: b d: b');
  t.same(
    childrenOf(tree, idOf(tree, 'b')).map((each) => each.name),
    ['c', 'd'],
  );
});

t.test('removing any node hands its children to its parent', async (t) => {
  const expected: Record<string, string> = {
    a: '*: d b: - c: b d: b',
    b: '*: d a: - c: a d: a',
    c: '*: d a: - b: a d: b',
    d: '*: b a: - b: a c: b',
  };
  for (const [name, after] of Object.entries(expected)) {
    const tree = branched();
    t.equal(shape(withoutSnapshot(tree, idOf(tree, name))), after, name);
    t.equal(shape(tree), '*: d a: - b: a c: b d: b', 'the old tree is as it was');
  }
  t.equal(shape(withoutSnapshot(branched(), randomUUID())), shape(branched()), 'none of it');
});

t.test('names', async (t) => {
  const tree = branched();
  t.equal(shape(withRenamedSnapshot(tree, idOf(tree, 'b'), 'B')), '*: d B: a a: - c: B d: B');
  t.throws(() => findSnapshot('web', tree, 'x'), { code: 'not-found', message: /"web".*"x"/ });
  t.equal(freeSnapshotName(tree, 'x'), 'x');
  t.equal(freeSnapshotName(grow(tree, 'x', 'x-2'), 'x'), 'x-3');
  const long = 'y'.repeat(70);
  t.equal(freeSnapshotName(tree, long).length, 64);
  const taken = grow(tree, 'y'.repeat(64));
  t.equal(freeSnapshotName(taken, long), `${'y'.repeat(62)}-2`);
});
