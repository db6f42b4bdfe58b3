/**
 * A namespace for tests: one VM per entry of `vms`, with its disks as files, read-only ones in
 * `snapshots/s1`, and vm.json.
 *
 * Node numbers: hi = VM number from 1; lo = 1 the VM's directory, 2 vm.json, 3 snapshots, 4
 * snapshots/s1, 16 + n the n-th disk of all.
 */
import { statSync } from 'node:fs';
import { DiskError } from '../../dist/modules/common/errors.js';

const FIRST_DISK = 16;

export class DiskNamespace {
  /**
   * @param {{vm: string, name: string, path: string, readOnly?: boolean}[]} disks index =
   * device handle
   */
  constructor(disks) {
    this.disks = disks;
    this.vms = [...new Set(disks.map((disk) => disk.vm))];
    this.opens = 0;
    this.releases = 0;
  }

  #json(hi) {
    return Buffer.from(`${JSON.stringify({ name: this.vms[hi - 1] })}\n`);
  }

  #attr(node, kind, size, allocatedSize, mode, nlink = 1) {
    const owner = { uid: process.getuid(), gid: process.getgid() };
    return { node, kind, size, allocatedSize, mode, ...owner, mtime: 1.6e12, nlink };
  }

  getattr(node) {
    const { hi, lo } = node;
    if (hi === 0 && lo === 1) return this.#attr(node, 'directory', 4096, 0, 0o755, 2);
    if (this.vms[hi - 1] === undefined) throw this.#gone();
    if (lo === 1 || lo === 3 || lo === 4) return this.#attr(node, 'directory', 4096, 0, 0o755, 2);
    if (lo === 2) return this.#attr(node, 'file', this.#json(hi).length, 4096, 0o444);
    const disk = this.disks[lo - FIRST_DISK];
    if (disk === undefined) throw this.#gone();
    const { size, blocks } = statSync(disk.path);
    return this.#attr(node, 'file', size, blocks * 512, disk.readOnly ? 0o400 : 0o600);
  }

  #gone() {
    return new DiskError('not-found', 'no such node', { errno: 'ESTALE' });
  }

  readdir(node) {
    const { hi, lo } = node;
    const directory = (name, at) => ({ name, node: at, kind: 'directory' });
    if (hi === 0) return this.vms.map((name, index) => directory(name, { hi: index + 1, lo: 1 }));
    const files = (readOnly) =>
      this.disks.flatMap((disk, index) =>
        disk.vm === this.vms[hi - 1] && (disk.readOnly === true) === readOnly
          ? [{ name: `${disk.name}.raw`, node: { hi, lo: FIRST_DISK + index }, kind: 'file' }]
          : [],
      );
    if (lo === 3) return [directory('s1', { hi, lo: 4 })];
    if (lo === 4) return files(true);
    const json = { name: 'vm.json', node: { hi, lo: 2 }, kind: 'file' };
    return [...files(false), directory('snapshots', { hi, lo: 3 }), json];
  }

  async lookup(parent, name) {
    const entry = this.readdir(parent).find((candidate) => candidate.name === name);
    return entry && this.getattr(entry.node);
  }

  open({ hi, lo }, { write }) {
    if (lo === 2) return { kind: 'content', bytes: this.#json(hi) };
    const handle = lo - FIRST_DISK;
    if (write && this.disks[handle].readOnly) {
      throw new DiskError('not-permitted', 'a snapshot is read-only', { errno: 'EROFS' });
    }
    this.opens += 1;
    return { kind: 'device', handle };
  }

  reopen() {
    this.opens += 1;
  }

  release() {
    this.releases += 1;
  }

  statfs() {
    return { total: 1 << 30, free: 1 << 29 };
  }
}
