/**
 * Writes VDI images for tests from a model, straight from the layout: an independent counterpart of
 * the reader.
 */
import { writeFileSync } from 'node:fs';
import type { DiskModel } from './disk-model.js';

export interface VdiOptions {
  /** 1 dynamic, 2 fixed, 4 differencing. */
  readonly type?: number;
  /** Bytes before each block's data. */
  readonly extra?: number;
  /** 384 or 400. */
  readonly headerSize?: number;
  readonly uuid?: string;
  readonly modification?: string;
  readonly parent?: string;
  readonly parentModification?: string;
  /** Offsets of the map and of the data; default 512 and the next 512 after the map. */
  readonly mapOffset?: number;
  readonly dataOffset?: number;
  /** Where a block's data goes: default backwards, so that slot and block differ. */
  readonly slotOf?: (nth: number, count: number) => number;
}

const FREE = 0xffffffff;
const ZERO = 0xfffffffe;

/** The bytes of a GUID as RTUUID keeps it in memory on x86. */
function guidBytes(uuid: string): Buffer {
  const [a = '', b = '', c = '', ...rest] = uuid.split('-');
  const reversed = (hex: string) => Buffer.from(hex, 'hex').reverse();
  return Buffer.concat([reversed(a), reversed(b), reversed(c), Buffer.from(rest.join(''), 'hex')]);
}

export function buildVdi(model: DiskModel, options: VdiOptions = {}): Buffer {
  const { extra = 0, headerSize = 400, type = 1, mapOffset = 512 } = options;
  const { slotOf = (nth, count) => count - 1 - nth } = options;
  const blockCount = model.states.length;
  const mapEnd = mapOffset + blockCount * 4;
  const dataOffset = options.dataOffset ?? Math.ceil(mapEnd / 512) * 512;
  const dataBlocks = model.states.filter((state) => state === 'data').length;
  const stride = extra + model.unitSize;
  const file = Buffer.alloc(dataOffset + dataBlocks * stride, 0xbd);
  file.fill(0, 0, dataOffset);
  file.write('<<< Oracle VM VirtualBox Disk Image >>>\n', 0, 'latin1');
  file.writeUInt32LE(0xbeda107f, 64);
  file.writeUInt32LE(0x00010001, 68);
  file.writeUInt32LE(headerSize, 72);
  file.writeUInt32LE(type, 76);
  file.writeUInt32LE(mapOffset, 340);
  file.writeUInt32LE(dataOffset, 344);
  file.writeUInt32LE(512, 360);
  file.writeBigUInt64LE(BigInt(model.size), 368);
  file.writeUInt32LE(model.unitSize, 376);
  file.writeUInt32LE(extra, 380);
  file.writeUInt32LE(blockCount, 384);
  file.writeUInt32LE(dataBlocks, 388);
  const nil = '00000000-0000-0000-0000-000000000000';
  guidBytes(options.uuid ?? '11111111-2222-3333-4444-555555555555').copy(file, 392);
  guidBytes(options.modification ?? '66666666-7777-8888-9999-aaaaaaaaaaaa').copy(file, 408);
  guidBytes(options.parent ?? nil).copy(file, 424);
  guidBytes(options.parentModification ?? nil).copy(file, 440);
  let nth = 0;
  for (const [block, state] of model.states.entries()) {
    let entry = state === 'zero' ? ZERO : FREE;
    if (state === 'data') {
      entry = slotOf(nth, dataBlocks);
      nth += 1;
      const at = block * model.unitSize;
      model.content.copy(file, dataOffset + entry * stride + extra, at, at + model.unitSize);
    }
    file.writeUInt32LE(entry, mapOffset + block * 4);
  }
  return file;
}

export function writeVdi(path: string, model: DiskModel, options: VdiOptions = {}): void {
  writeFileSync(path, buildVdi(model, options));
}
