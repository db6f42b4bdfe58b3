/** Makes entries for the log of a VHDX ([MS-VHDX] 2.3.1). */
import { crc32cOf } from '../../src/common/checksum.js';
import type { Uuid } from '../../src/common/uuid.js';
import {
  CHECKSUM_OFFSET,
  DATA_DESCRIPTOR_SIGNATURE,
  DATA_SECTOR,
  DATA_SECTOR_SIGNATURE,
  LOG_DESCRIPTOR,
  LOG_ENTRY,
  LOG_ENTRY_SIGNATURE,
  LOG_SECTOR_SIZE,
  ZERO_DESCRIPTOR_SIGNATURE,
} from '../../src/formats/vhdx/vhdx-layout.js';

/** Zeroes of a length, or a sector of 4 KiB. */
export type LoggedWrite =
  | { readonly offset: number; readonly zeroLength: number }
  | { readonly offset: number; readonly sector: Buffer };

export interface LogEntryPlan {
  readonly sequenceNumber: bigint;
  /** Position in the log of the oldest entry still needed. */
  readonly tail: number;
  readonly logGuid: Uuid;
  readonly writes: readonly LoggedWrite[];
  readonly flushedFileOffset: number;
  readonly lastFileOffset: number;
}

export function buildLogEntry(plan: LogEntryPlan): Buffer {
  const { sequenceNumber, writes } = plan;
  const low = Number(sequenceNumber & 0xffffffffn);
  const high = Number(sequenceNumber >> 32n);
  const descriptors: Buffer[] = [];
  const sectors: Buffer[] = [];
  for (const write of writes) {
    const common = { fileOffset: BigInt(write.offset), sequenceNumber };
    if ('zeroLength' in write) {
      const leading = Buffer.alloc(8);
      leading.writeBigUInt64LE(BigInt(write.zeroLength));
      const signature = ZERO_DESCRIPTOR_SIGNATURE;
      descriptors.push(LOG_DESCRIPTOR.encode({ ...common, signature, leading }));
      continue;
    }
    const { sector } = write;
    descriptors.push(
      LOG_DESCRIPTOR.encode({
        ...common,
        signature: DATA_DESCRIPTOR_SIGNATURE,
        leading: sector.subarray(0, 8),
        trailing: sector.subarray(4092),
      }),
    );
    sectors.push(
      DATA_SECTOR.encode({
        signature: DATA_SECTOR_SIGNATURE,
        sequenceHigh: high,
        data: sector.subarray(8, 4092),
        sequenceLow: low,
      }),
    );
  }
  const head = LOG_ENTRY.size + descriptors.length * LOG_DESCRIPTOR.size;
  const headLength = Math.ceil(head / LOG_SECTOR_SIZE) * LOG_SECTOR_SIZE;
  const header = LOG_ENTRY.encode({
    signature: LOG_ENTRY_SIGNATURE,
    entryLength: headLength + sectors.length * LOG_SECTOR_SIZE,
    tail: plan.tail,
    sequenceNumber,
    descriptorCount: writes.length,
    logGuid: plan.logGuid,
    flushedFileOffset: BigInt(plan.flushedFileOffset),
    lastFileOffset: BigInt(plan.lastFileOffset),
  });
  const padding = Buffer.alloc(headLength - head);
  const entry = Buffer.concat([header, ...descriptors, padding, ...sectors]);
  sealLogEntry(entry);
  return entry;
}

/** Writes the right checksum into an entry. */
export function sealLogEntry(entry: Buffer): void {
  entry.writeUInt32LE(0, CHECKSUM_OFFSET);
  entry.writeUInt32LE(crc32cOf(entry), CHECKSUM_OFFSET);
}
