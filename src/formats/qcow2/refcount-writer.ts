/**
 * The clusters of a qcow2 file under construction: hands them out in ascending order, and writes
 * how often each is referred to.
 */
import { invariant } from '../../common/assert.js';
import { u64be } from '../../common/struct.js';
import { divCeil } from '../../common/units.js';
import type { OutputFile } from '../../storage/output-files.js';
import { ENTRY_SIZE, WRITTEN_CLUSTER_SIZE } from './qcow2-layout.js';

/** Reference counts are 16 bits wide. */
const COUNT_SIZE = 2;
/** Clusters that one refcount block speaks of: 2 GiB of the file. */
const CLUSTERS_PER_BLOCK = WRITTEN_CLUSTER_SIZE / COUNT_SIZE;

/**
 * INVARIANT: counts change only for clusters of the block that the newest cluster belongs to, so
 * that one block is in memory and the others are in the file.
 */
export class RefcountWriter {
  readonly #file: OutputFile;
  #next = 0;
  #block = Buffer.alloc(WRITTEN_CLUSTER_SIZE);
  /** Number of the block in memory. */
  #current = 0;
  /** Where the blocks lie that are in the file, in their order. */
  readonly #blocks: number[] = [];

  constructor(file: OutputFile) {
    this.#file = file;
  }

  /** Bytes of the file that are handed out. */
  get end(): number {
    return this.#next * WRITTEN_CLUSTER_SIZE;
  }

  /** Clusters that the table of all blocks takes for a file of at most so many clusters. */
  static tableClusters(clusters: number): number {
    return divCeil(divCeil(clusters, CLUSTERS_PER_BLOCK), WRITTEN_CLUSTER_SIZE / ENTRY_SIZE);
  }

  /** A new cluster with one reference: its offset in the file. */
  take(): number {
    const cluster = this.#next;
    this.#next += 1;
    const block = Math.floor(cluster / CLUSTERS_PER_BLOCK);
    const full = this.#block;
    if (block !== this.#current) {
      this.#block = Buffer.alloc(WRITTEN_CLUSTER_SIZE);
      this.#current = block;
    }
    this.#count(cluster);
    if (full !== this.#block) this.#store(full, this.take());
    return cluster * WRITTEN_CLUSTER_SIZE;
  }

  /** One more reference to the cluster at `offset`, which is the newest. */
  addReference(offset: number): void {
    invariant(offset + WRITTEN_CLUSTER_SIZE === this.end, 'the newest cluster is shared');
    this.#count(offset / WRITTEN_CLUSTER_SIZE);
  }

  /**
   * Writes the counts that are still in memory, and at `tableOffset` the table.
   * @param tableOffset of `tableClusters` clusters that were taken before.
   */
  finish(tableOffset: number): void {
    // Taken first: the block counts its own cluster.
    const place = this.take();
    this.#store(this.#block, place);
    const table = Buffer.alloc(this.#blocks.length * ENTRY_SIZE);
    for (const [index, offset] of this.#blocks.entries()) {
      u64be.write(table, index * ENTRY_SIZE, BigInt(offset));
    }
    this.#file.write(table, 0, table.length, tableOffset);
  }

  #store(block: Buffer, offset: number): void {
    this.#file.write(block, 0, block.length, offset);
    this.#blocks.push(offset);
  }

  #count(cluster: number): void {
    const at = (cluster % CLUSTERS_PER_BLOCK) * COUNT_SIZE;
    this.#block.writeUInt16BE(this.#block.readUInt16BE(at) + 1, at);
  }
}
