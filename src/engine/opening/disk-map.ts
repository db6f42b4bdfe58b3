/** Maps of open volumes: which delta or base image answers, and where its bytes lie. */
import type { MapExtent } from '../../common/extent-map.js';
import type { DeltaFiles } from '../delta/delta-files.js';
import type { DeltaId } from '../delta-id.js';
import type { VolumePiece } from '../volume/volume.js';
import type { LoadedChain } from './chain-loader.js';
import type { DeltaTable } from './delta-table.js';

/** What numbers in the map of a chain mean. */
export class ChainNames {
  readonly #files: DeltaFiles;
  readonly #chain: LoadedChain;
  /** Index in the delta table -> place in the chain. */
  readonly #depths = new Map<number, number>();
  readonly #paths = new Map<DeltaId, string>();

  constructor(files: DeltaFiles, table: DeltaTable, chain: LoadedChain) {
    this.#files = files;
    this.#chain = chain;
    for (const [depth, id] of chain.deltas.entries()) {
      const delta = table.get(id);
      if (delta !== undefined) this.#depths.set(delta.index, depth);
    }
  }

  /** The piece at `start` as an extent. */
  describe(start: number, piece: VolumePiece): MapExtent {
    const { length } = piece;
    const { deltas, base } = this.#chain;
    if (piece.kind === 'base') {
      const { extent } = piece;
      const layer = extent.present ? base?.images[extent.depth]?.path : undefined;
      const depth = deltas.length + extent.depth;
      return { ...extent, depth, ...(layer === undefined ? {} : { layer }) };
    }
    if (piece.kind !== 'delta') {
      const present = piece.kind === 'zero';
      const depth = present ? 0 : deltas.length - 1;
      return { start, length, depth, present, zero: true, data: false };
    }
    const depth = this.#depths.get(piece.delta) ?? 0;
    const layer = deltas[depth]!;
    const file = this.#dataPath(layer);
    const { offset } = piece;
    return { start, length, depth, present: true, zero: false, data: true, layer, file, offset };
  }

  #dataPath(id: DeltaId): string {
    let path = this.#paths.get(id);
    if (path === undefined) {
      path = this.#files.dataPath(id, this.#files.readHeader(id).current.dataGeneration);
      this.#paths.set(id, path);
    }
    return path;
  }
}
