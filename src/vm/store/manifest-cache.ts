/** The manifests used last, parsed: a store may have ten thousand, and most are asleep. */
import type { Manifest } from './manifest.js';

/** VMs and snapshots in all manifests that are kept, together; one takes one or two kilobytes. */
const CAPACITY = 4096;

export class ManifestCache {
  /** By VM id, least recently used first. */
  readonly #entries = new Map<string, Manifest>();
  #weight = 0;

  get(id: string): Manifest | undefined {
    const found = this.#entries.get(id);
    if (found !== undefined) {
      this.#entries.delete(id);
      this.#entries.set(id, found);
    }
    return found;
  }

  set(id: string, manifest: Manifest): void {
    this.delete(id);
    this.#entries.set(id, manifest);
    this.#weight += weightOf(manifest);
    for (const oldest of this.#entries.keys()) {
      if (this.#weight <= CAPACITY || oldest === id) return;
      this.delete(oldest);
    }
  }

  delete(id: string): void {
    const found = this.#entries.get(id);
    if (found === undefined) return;
    this.#weight -= weightOf(found);
    this.#entries.delete(id);
  }
}

function weightOf(manifest: Manifest): number {
  return 1 + manifest.snapshots.length;
}
