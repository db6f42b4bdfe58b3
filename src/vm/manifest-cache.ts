/** The manifests used last, parsed: a store may have ten thousand, and most are asleep. */
import type { Manifest } from './manifest.js';

const CAPACITY = 256;

export class ManifestCache {
  /** By VM id, least recently used first. */
  readonly #entries = new Map<string, Manifest>();

  get(id: string): Manifest | undefined {
    const found = this.#entries.get(id);
    if (found !== undefined) {
      this.#entries.delete(id);
      this.#entries.set(id, found);
    }
    return found;
  }

  set(id: string, manifest: Manifest): void {
    this.#entries.delete(id);
    this.#entries.set(id, manifest);
    if (this.#entries.size <= CAPACITY) return;
    const oldest = this.#entries.keys().next();
    if (!oldest.done) this.#entries.delete(oldest.value);
  }

  delete(id: string): void {
    this.#entries.delete(id);
  }
}
