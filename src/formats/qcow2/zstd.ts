/** Unpacks zstd (RFC 8878) clusters: the sole importer of the zstd decoder. */
import { ZSTDDecoder } from 'zstddec';

const FRAME_MAGIC = 0xfd2fb528;
/** Skippable frames have any magic from this one to 15 more. */
const SKIPPABLE_MAGIC = 0x184d2a50;
const BLOCK_HEADER_SIZE = 3;
const BLOCK_RAW = 0;
const BLOCK_RLE = 1;
const BLOCK_COMPRESSED = 2;
/**
 * Lengths of the dictionary id, and of the content size without and with the single-segment flag.
 */
const DICTIONARY_ID_SIZES = [0, 1, 2, 4] as const;
const CONTENT_SIZE_SIZES = [0, 2, 4, 8] as const;

const decoder = new ZSTDDecoder();
/** Whoever imports this as a module finds it done; a bundled program waits for it before work. */
export const decoderReady = load(decoder);
await decoderReady;

/**
 * Unpacks frames until `size` bytes have come out; what follows is ignored, for a compressed
 * cluster is stored in whole sectors.
 * @returns `size` bytes, or fewer when the frames give no more.
 * @throws Error when a frame is cut off or broken, or gives more than there is room for.
 */
export function unpackZstd(packed: Buffer, size: number): Uint8Array {
  // Made for the second frame only: QEMU writes one, and clusters have up to 2 MiB.
  let out: Uint8Array | undefined;
  let done = 0;
  let at = 0;
  while (done < size && at < packed.length) {
    const frame = measureFrame(packed, at);
    if (!frame.skippable) {
      const piece = decoder.decode(packed.subarray(at, at + frame.length), size - done);
      if (piece.length === 0) throw new Error(`zstd frame at byte ${at} is broken`);
      if (piece.length === size) return piece;
      out ??= new Uint8Array(size);
      out.set(piece, done);
      done += piece.length;
    }
    at += frame.length;
  }
  return out === undefined ? new Uint8Array(0) : out.subarray(0, done);
}

/**
 * Where there is a `fetch` the decoder unpacks its own program through it, and so loads Node's
 * HTTP client: 0.1 s in each thread. Without one it does the same by itself.
 */
async function load(zstd: ZSTDDecoder): Promise<void> {
  const fetch = Object.getOwnPropertyDescriptor(globalThis, 'fetch');
  Reflect.deleteProperty(globalThis, 'fetch');
  const loading = zstd.init();
  if (fetch !== undefined) Object.defineProperty(globalThis, 'fetch', fetch);
  await loading;
}

/**
 * The decoder takes whole frames only: finds where the one at `at` ends, from its block headers.
 */
function measureFrame(packed: Buffer, at: number): { length: number; skippable: boolean } {
  const magic = uint32(packed, at);
  if ((magic & 0xfffffff0) >>> 0 === SKIPPABLE_MAGIC) {
    return { length: checked(packed, at, 8 + uint32(packed, at + 4)), skippable: true };
  }
  if (magic !== FRAME_MAGIC) throw new Error(`no zstd frame at byte ${at}`);
  const descriptor = packed[at + 4] ?? 0;
  const singleSegment = (descriptor & 0x20) !== 0;
  const sizeFlag = descriptor >>> 6;
  let length = 5 + (singleSegment ? 0 : 1);
  length += DICTIONARY_ID_SIZES[descriptor & 3]!;
  length += sizeFlag === 0 && singleSegment ? 1 : CONTENT_SIZE_SIZES[sizeFlag]!;
  for (let last = false; !last; ) {
    const header = uint24(packed, at + length);
    last = (header & 1) === 1;
    const type = (header >>> 1) & 3;
    if (type !== BLOCK_RAW && type !== BLOCK_RLE && type !== BLOCK_COMPRESSED) {
      throw new Error(`zstd block type ${type} is reserved`);
    }
    length += BLOCK_HEADER_SIZE + (type === BLOCK_RLE ? 1 : header >>> 3);
  }
  if ((descriptor & 4) !== 0) length += 4;
  return { length: checked(packed, at, length), skippable: false };
}

function checked(packed: Buffer, at: number, length: number): number {
  if (at + length > packed.length) throw new Error(`zstd frame at byte ${at} is cut off`);
  return length;
}

function uint32(packed: Buffer, at: number): number {
  checked(packed, at, 4);
  return packed.readUInt32LE(at);
}

function uint24(packed: Buffer, at: number): number {
  checked(packed, at, BLOCK_HEADER_SIZE);
  return packed.readUIntLE(at, BLOCK_HEADER_SIZE);
}
