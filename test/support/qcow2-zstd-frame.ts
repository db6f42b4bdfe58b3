/** Makes zstd frames (RFC 8878) of stored and run-length blocks, without a compressor. */

const MAX_BLOCK = 128 * 1024;

export interface FrameOptions {
  /** Leaves the content size out, and says a window of 1 MiB instead. */
  readonly windowed?: boolean;
  /** Appends four bytes for a content checksum (its value is then wrong). */
  readonly checksumFlag?: boolean;
}

/** One frame that unpacks to `content`; blocks of one repeated byte become run-length blocks. */
export function zstdFrame(content: Buffer, options: FrameOptions = {}): Buffer {
  const parts: Buffer[] = [];
  const header = Buffer.alloc(options.windowed === true ? 6 : 9);
  header.writeUInt32LE(0xfd2fb528, 0);
  if (options.windowed === true) {
    header[5] = 10 << 3;
  } else {
    header[4] = 0xa0;
    header.writeUInt32LE(content.length, 5);
  }
  if (options.checksumFlag === true) header[4]! |= 4;
  parts.push(header);
  for (let at = 0; at < content.length || at === 0; at += MAX_BLOCK) {
    const piece = content.subarray(at, at + MAX_BLOCK);
    const isLast = at + MAX_BLOCK >= content.length;
    const isRun = piece.length > 0 && piece.every((byte) => byte === piece[0]);
    const blockHeader = Buffer.alloc(3);
    blockHeader.writeUIntLE((piece.length << 3) | ((isRun ? 1 : 0) << 1) | (isLast ? 1 : 0), 0, 3);
    parts.push(blockHeader, isRun ? piece.subarray(0, 1) : piece);
  }
  if (options.checksumFlag === true) parts.push(Buffer.alloc(4));
  return Buffer.concat(parts);
}

/** A frame that decoders skip. */
export function skippableFrame(length: number): Buffer {
  const frame = Buffer.alloc(8 + length, 0x55);
  frame.writeUInt32LE(0x184d2a53, 0);
  frame.writeUInt32LE(length, 4);
  return frame;
}
