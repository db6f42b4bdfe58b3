/** Writes VHD images byte by byte from models: all types, any block size, odd layouts. */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { onesComplementSum } from '../../src/common/checksum.js';
import type { Uuid } from '../../src/common/uuid.js';
import {
  BAT_ENTRY_SIZE,
  DYNAMIC_COOKIE,
  DYNAMIC_HEADER,
  FOOTER,
  FOOTER_COOKIE,
  type PARENT_LOCATOR,
} from '../../src/formats/vhd/vhd-layout.js';
import type { DiskModel } from './disk-model.js';

export const HEADER_OFFSET = 512;
export const TABLE_OFFSET = 1536;
const RUBBISH = 0xcc;

export interface VhdParent {
  readonly uuid: Uuid;
  readonly timeStamp?: number;
  /** The name in the header itself. */
  readonly name?: string;
  /** Platform code -> bytes. */
  readonly locators?: readonly { readonly code: number; readonly data: Buffer }[];
}

export interface VhdPlan {
  /** States of sectors or of more: `data` or `unallocated`, for a fixed disk all data. */
  readonly model: DiskModel;
  readonly type?: 'fixed' | 'dynamic' | 'differencing';
  readonly blockSize?: number;
  readonly uuid?: Uuid;
  readonly timeStamp?: number;
  readonly parent?: VhdParent;
  /** First sector of the nth block that is written, instead of the next free one. */
  readonly place?: (nth: number) => number;
  readonly creator?: string;
  readonly geometry?: readonly [cylinders: number, heads: number, sectors: number];
  /** 511 for a footer as Virtual PC wrote it before 2004. */
  readonly footerSize?: 511 | 512;
  /** Entries of the block table beyond those needed. */
  readonly spareEntries?: number;
}

export interface VhdLayout {
  /** Block -> offset of its bitmap. */
  readonly blockOffsets: ReadonlyMap<number, number>;
  readonly bitmapSize: number;
  readonly footerOffset: number;
  readonly tableOffset: number;
}

const TYPE_NUMBERS = { fixed: 2, dynamic: 3, differencing: 4 } as const;

export function writeVhd(path: string, plan: VhdPlan): VhdLayout {
  const fd = openSync(path, 'w+');
  try {
    return plan.type === 'fixed' ? writeFixed(fd, plan) : new DynamicWriter(fd, plan).run();
  } finally {
    closeSync(fd);
  }
}

/** Writes the right checksum into a footer or dynamic header. */
export function sealVhd(structure: Buffer, fieldOffset: number): void {
  structure.writeUInt32BE(onesComplementSum(structure, fieldOffset), fieldOffset);
}

function write(fd: number, bytes: Buffer, offset: number): void {
  writeSync(fd, bytes, 0, bytes.length, offset);
}

function buildFooter(plan: VhdPlan): Buffer {
  const { model, type = 'dynamic', geometry = [1, 1, 1] } = plan;
  const footer = FOOTER.encode({
    cookie: Buffer.from(FOOTER_COOKIE),
    features: 2,
    version: 0x00010000,
    dataOffset: type === 'fixed' ? 0xffffffffffffffffn : BigInt(HEADER_OFFSET),
    timeStamp: plan.timeStamp ?? 500_000_000,
    creatorApplication: Buffer.from(plan.creator ?? 'test'),
    creatorVersion: 0x00010002,
    creatorHostOs: Buffer.from('Wi2k'),
    originalSize: BigInt(model.size),
    currentSize: BigInt(model.size),
    cylinders: geometry[0],
    heads: geometry[1],
    sectorsPerTrack: geometry[2],
    diskType: TYPE_NUMBERS[type],
    uuid: plan.uuid ?? 'cccccccc-0000-0000-0000-000000000001',
  });
  sealVhd(footer, FOOTER.offsetOf.checksum);
  return footer;
}

function writeFixed(fd: number, plan: VhdPlan): VhdLayout {
  const { model, footerSize = 512 } = plan;
  write(fd, model.content, 0);
  write(fd, buildFooter(plan).subarray(0, footerSize), model.size);
  return { blockOffsets: new Map(), bitmapSize: 0, footerOffset: model.size, tableOffset: 0 };
}

class DynamicWriter {
  readonly #fd: number;
  readonly #plan: VhdPlan;
  readonly #blockSize: number;
  readonly #bitmapSize: number;
  readonly #table: Buffer;
  readonly #blockOffsets = new Map<number, number>();
  #end: number;

  constructor(fd: number, plan: VhdPlan) {
    this.#fd = fd;
    this.#plan = plan;
    this.#blockSize = plan.blockSize ?? 2 * 1024 * 1024;
    this.#bitmapSize = Math.ceil(this.#blockSize / 512 / 8 / 512) * 512;
    const blocks = Math.ceil(plan.model.size / this.#blockSize) + (plan.spareEntries ?? 0);
    this.#table = Buffer.alloc(Math.ceil((blocks * BAT_ENTRY_SIZE) / 512) * 512, 0xff);
    this.#end = TABLE_OFFSET + this.#table.length;
  }

  run(): VhdLayout {
    const { model, spareEntries = 0, footerSize = 512 } = this.#plan;
    const locators = this.#writeLocators();
    const blocks = Math.ceil(model.size / this.#blockSize);
    for (let block = 0; block < blocks; block += 1) this.#writeBlock(block);
    const footer = buildFooter(this.#plan);
    write(this.#fd, footer, 0);
    write(this.#fd, this.#buildHeader(blocks + spareEntries, locators), HEADER_OFFSET);
    write(this.#fd, this.#table, TABLE_OFFSET);
    ftruncateSync(this.#fd, this.#end);
    write(this.#fd, footer.subarray(0, footerSize), this.#end);
    return {
      blockOffsets: this.#blockOffsets,
      bitmapSize: this.#bitmapSize,
      footerOffset: this.#end,
      tableOffset: TABLE_OFFSET,
    };
  }

  #writeLocators(): ReturnType<typeof PARENT_LOCATOR.decode>[] {
    const { locators = [] } = this.#plan.parent ?? {};
    const entries = locators.map(({ code, data }) => {
      const dataOffset = BigInt(this.#end);
      write(this.#fd, data, this.#end);
      const dataSpace = Math.ceil(data.length / 512);
      this.#end += dataSpace * 512;
      return { platformCode: code, dataSpace, dataLength: data.length, reserved: 0, dataOffset };
    });
    const none = { platformCode: 0, dataSpace: 0, dataLength: 0, reserved: 0, dataOffset: 0n };
    return [...entries, ...Array.from({ length: 8 - entries.length }, () => none)];
  }

  #buildHeader(
    maxTableEntries: number,
    parentLocators: ReturnType<typeof PARENT_LOCATOR.decode>[],
  ): Buffer {
    const { parent } = this.#plan;
    const header = DYNAMIC_HEADER.encode({
      cookie: Buffer.from(DYNAMIC_COOKIE),
      dataOffset: 0xffffffffffffffffn,
      tableOffset: BigInt(TABLE_OFFSET),
      version: 0x00010000,
      maxTableEntries,
      blockSize: this.#blockSize,
      parentUuid: parent?.uuid ?? '00000000-0000-0000-0000-000000000000',
      parentTimeStamp: parent?.timeStamp ?? 0,
      parentName: Buffer.from(parent?.name ?? '', 'utf16le').swap16(),
      parentLocators,
    });
    sealVhd(header, DYNAMIC_HEADER.offsetOf.checksum);
    return header;
  }

  #writeBlock(block: number): void {
    const { model } = this.#plan;
    const start = block * this.#blockSize;
    const bitmap = Buffer.alloc(this.#bitmapSize);
    const content = Buffer.alloc(this.#blockSize, RUBBISH);
    let isUsed = false;
    for (let at = start; at < Math.min(start + this.#blockSize, model.size); at += 512) {
      if (model.states[Math.floor(at / model.unitSize)] !== 'data') continue;
      isUsed = true;
      const sector = (at - start) / 512;
      bitmap[sector >> 3]! |= 0x80 >> (sector & 7);
      content.fill(0, at - start, at - start + 512);
      model.content.copy(content, at - start, at, Math.min(at + 512, model.size));
    }
    if (!isUsed) return;
    const place = this.#plan.place?.(this.#blockOffsets.size);
    const offset = place === undefined ? this.#end : place * 512;
    this.#blockOffsets.set(block, offset);
    write(this.#fd, bitmap, offset);
    write(this.#fd, content, offset + this.#bitmapSize);
    this.#table.writeUInt32BE(offset / 512, block * BAT_ENTRY_SIZE);
    this.#end = Math.max(this.#end, offset + this.#bitmapSize + this.#blockSize);
  }
}
