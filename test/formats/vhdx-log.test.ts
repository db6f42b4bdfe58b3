/** Dirty logs of VHDX: what is replayed, what is not, and what is refused. */
import { closeSync, openSync, readFileSync, readSync, truncateSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { MiB } from '../../src/common/units.js';
import { openVhdx } from '../../src/formats/vhdx/vhdx-image.js';
import { firstDifference, imageSuite } from '../conformance/image-suite.js';
import { readChain } from '../support/chain-reader.js';
import { type DiskModel, stampedModel } from '../support/disk-model.js';
import { tempFolder } from '../support/temp-folder.js';
import { buildLogEntry, type LogEntryPlan, type LoggedWrite } from '../support/vhdx-log-writer.js';
import {
  BAT_OFFSET,
  LOG_GUID,
  LOG_LENGTH,
  LOG_OFFSET,
  METADATA_OFFSET,
  type VhdxLayout,
  writeVhdx,
} from '../support/vhdx-writer.js';

const CAPABILITIES = { format: 'vhdx', zeroExtents: true, unallocatedExtents: true, reads: 40 };
const SECTOR = 4096;
const RUBBISH = Buffer.alloc(SECTOR, 0xdd);

/** An image on disk with a dirty log, and the means to lose parts of it. */
class DirtyImage {
  readonly path: string;
  readonly model: DiskModel;
  readonly layout: VhdxLayout;
  readonly #fd: number;

  constructor(folder: string, name: string) {
    this.path = join(folder, `${name}.vhdx`);
    this.model = stampedModel({ size: 5 * MiB, unitSize: MiB, pattern: 'dzdud', salt: 7 });
    this.layout = writeVhdx(this.path, { model: this.model, blockSize: MiB, logGuid: LOG_GUID });
    this.#fd = openSync(this.path, 'r+');
  }

  /** Takes a sector out of the file: gives what was there and leaves rubbish. */
  lose(offset: number): LoggedWrite {
    const sector = Buffer.alloc(SECTOR);
    readSync(this.#fd, sector, 0, SECTOR, offset);
    this.write(RUBBISH, offset);
    return { offset, sector };
  }

  write(bytes: Buffer, offset: number): void {
    writeSync(this.#fd, bytes, 0, bytes.length, offset);
  }

  entry(plan: Partial<LogEntryPlan>): Buffer {
    return buildLogEntry({
      sequenceNumber: 1n,
      tail: 0,
      logGuid: LOG_GUID,
      writes: [],
      flushedFileOffset: this.layout.fileSize,
      lastFileOffset: this.layout.fileSize,
      ...plan,
    });
  }

  /** Puts bytes into the log at a position, round its end. */
  log(at: number, bytes: Buffer): number {
    const first = Math.min(bytes.length, LOG_LENGTH - at);
    this.write(bytes.subarray(0, first), LOG_OFFSET + at);
    if (first < bytes.length) this.write(bytes.subarray(first), LOG_OFFSET);
    return (at + bytes.length) % LOG_LENGTH;
  }

  close(): void {
    closeSync(this.#fd);
  }
}

type Scenario = (image: DirtyImage) => void;

/** Each loses parts of the image that only a right replay brings back. */
const SCENARIOS: Readonly<Record<string, Scenario>> = {
  'one entry': (image) => {
    const writes = [image.lose(BAT_OFFSET), image.lose(METADATA_OFFSET)];
    image.log(0, image.entry({ writes }));
  },
  'the region tables too': (image) => {
    const writes = [192, 256].map((kib) => image.lose(kib * 1024));
    image.log(0, image.entry({ writes }));
  },
  'a later entry wins over an earlier one': (image) => {
    const bat = image.lose(BAT_OFFSET);
    const stale = { offset: BAT_OFFSET, sector: Buffer.alloc(SECTOR, 0x11) };
    const next = image.log(0, image.entry({ sequenceNumber: 4n, writes: [stale] }));
    image.log(next, image.entry({ sequenceNumber: 5n, writes: [bat] }));
  },
  'zeroes, then data over a part of them': (image) => {
    const bat = image.lose(BAT_OFFSET);
    image.write(RUBBISH, BAT_OFFSET + SECTOR);
    const zeroes = { offset: BAT_OFFSET, zeroLength: 2 * SECTOR };
    image.log(0, image.entry({ writes: [zeroes, bat] }));
  },
  'a sequence that wraps between entries': (image) => {
    const writes = [image.lose(BAT_OFFSET)];
    const tail = LOG_LENGTH - 2 * SECTOR;
    const next = image.log(tail, image.entry({ sequenceNumber: 8n, tail, writes }));
    image.log(
      next,
      image.entry({ sequenceNumber: 9n, tail, writes: [image.lose(METADATA_OFFSET)] }),
    );
  },
  'an entry that wraps': (image) => {
    const writes = [image.lose(BAT_OFFSET), image.lose(METADATA_OFFSET)];
    const tail = LOG_LENGTH - SECTOR;
    image.log(tail, image.entry({ tail, writes }));
  },
  'more descriptors than fit one sector': (image) => {
    const idle = Array.from({ length: 200 }, (_, index) => ({
      offset: METADATA_OFFSET + 512 * 1024 + index * SECTOR,
      zeroLength: SECTOR,
    }));
    image.log(SECTOR, image.entry({ tail: SECTOR, writes: [...idle, image.lose(BAT_OFFSET)] }));
  },
  'sequence numbers past 2^32': (image) => {
    const sequenceNumber = (5n << 32n) | 0xffffffffn;
    const next = image.log(0, image.entry({ sequenceNumber, writes: [image.lose(BAT_OFFSET)] }));
    const writes = [image.lose(METADATA_OFFSET)];
    image.log(next, image.entry({ sequenceNumber: sequenceNumber + 1n, writes }));
  },
  'a torn last entry': (image) => {
    const next = image.log(0, image.entry({ writes: [image.lose(BAT_OFFSET)] }));
    const stale = { offset: BAT_OFFSET, sector: Buffer.alloc(SECTOR, 0x22) };
    const torn = image.entry({ sequenceNumber: 2n, writes: [stale, stale] });
    image.log(next, torn.subarray(0, 2 * SECTOR));
  },
  'a torn entry, then a valid one that needs it': (image) => {
    const stale = { offset: BAT_OFFSET, sector: Buffer.alloc(SECTOR, 0x33) };
    const first = image.entry({ writes: [image.lose(BAT_OFFSET)] });
    const torn = image.entry({ sequenceNumber: 2n, writes: [stale] });
    torn[5000]! ^= 1;
    const third = image.entry({ sequenceNumber: 3n, writes: [stale] });
    image.log(image.log(image.log(0, first), torn), third);
  },
  'entries before the tail are not replayed': (image) => {
    const payload = image.layout.blockOffsets.get(0)!;
    const old = image.entry({ writes: [{ offset: payload, zeroLength: MiB }] });
    const tail = image.log(0, old);
    image.log(tail, image.entry({ sequenceNumber: 2n, tail, writes: [image.lose(BAT_OFFSET)] }));
  },
  'entries of another log are not replayed': (image) => {
    const stale = [{ offset: BAT_OFFSET, sector: Buffer.alloc(SECTOR, 0x44) }];
    const logGuid = '99999999-3333-4444-5555-666677778888';
    const next = image.log(0, image.entry({ writes: [image.lose(BAT_OFFSET)] }));
    image.log(next, image.entry({ sequenceNumber: 2n, logGuid, writes: stale }));
    image.log(8 * SECTOR, image.entry({ sequenceNumber: 99n, tail: 8 * SECTOR, logGuid }));
  },
  'the newest of two sequences': (image) => {
    const stale = [{ offset: BAT_OFFSET, sector: Buffer.alloc(SECTOR, 0x55) }];
    const at = 20 * SECTOR;
    image.log(at, image.entry({ sequenceNumber: 6n, tail: at, writes: [image.lose(BAT_OFFSET)] }));
    image.log(40 * SECTOR, image.entry({ sequenceNumber: 5n, tail: 40 * SECTOR, writes: stale }));
    image.log(0, image.entry({ sequenceNumber: 4n, writes: stale }));
  },
  'an entry without descriptors': (image) => {
    const next = image.log(0, image.entry({ writes: [image.lose(BAT_OFFSET)] }));
    image.log(next, image.entry({ sequenceNumber: 2n }));
  },
};

t.test('logs that are replayed', async (t) => {
  const folder = tempFolder(t);
  for (const [name, lose] of Object.entries(SCENARIOS)) {
    const image = new DirtyImage(folder, name.replaceAll(' ', '-'));
    lose(image);
    image.close();
    const opened = openVhdx(image.path);
    const whole = readChain([opened], 0, image.model.size);
    t.equal(firstDifference(whole, image.model.content), -1, name);
    t.match(opened.info().notes.join(), /was not closed cleanly: \d+ log entr/);
    opened.close();
    if (name !== 'an entry that wraps') continue;
    imageSuite(t, name, () => openVhdx(image.path), image.model, CAPABILITIES);
  }
});

t.test('a file that the log extends reads as zeroes there', async (t) => {
  const image = new DirtyImage(tempFolder(t), 'extended');
  const lastFileOffset = image.layout.fileSize + 3 * MiB;
  const bat = Buffer.alloc(SECTOR);
  readFileSync(image.path).copy(bat, 0, BAT_OFFSET);
  bat.writeBigUInt64LE((BigInt((lastFileOffset - MiB) / MiB) << 20n) | 6n, 3 * 8);
  const writes = [{ offset: BAT_OFFSET, sector: bat }];
  image.log(0, image.entry({ writes, lastFileOffset }));
  image.close();
  const opened = openVhdx(image.path);
  const target = Buffer.alloc(MiB, 0xee);
  opened.readAt(target, 0, 3 * MiB, MiB);
  t.ok(target.equals(Buffer.alloc(MiB)), 'allocated at the end, never written');
  opened.readAt(target, 0, 0, MiB);
  t.ok(target.equals(image.model.content.subarray(0, MiB)), 'the rest is as it was');
  opened.close();
});

function refuses(
  t: Test,
  name: string,
  message: RegExp,
  damage: (image: DirtyImage) => void,
): void {
  const image = new DirtyImage(tempFolder(t), 'refused');
  damage(image);
  image.close();
  t.throws(() => openVhdx(image.path), { code: 'damaged', message }, name);
}

t.test('logs that cannot be replayed', async (t) => {
  refuses(t, 'nothing in it', /no valid sequence/, () => {});
  refuses(t, 'only a torn entry', /no valid sequence/, (image) => {
    const entry = image.entry({ writes: [image.lose(BAT_OFFSET)] });
    entry[100]! ^= 0x80;
    image.log(0, entry);
  });
  refuses(t, 'only an entry that needs a lost one', /no valid sequence/, (image) => {
    image.log(SECTOR, image.entry({ sequenceNumber: 5n, tail: 0 }));
  });
  refuses(t, 'the file was cut', /was truncated/, (image) => {
    image.log(0, image.entry({}));
    truncateSync(image.path, image.layout.fileSize - MiB);
  });
  refuses(t, 'sequence number 0', /no valid sequence/, (image) => {
    image.log(0, image.entry({ sequenceNumber: 0n }));
  });
  refuses(t, 'offset that is no multiple of 4 KiB', /no valid sequence/, (image) => {
    image.log(0, image.entry({ writes: [{ offset: BAT_OFFSET + 512, zeroLength: SECTOR }] }));
  });
});

t.test('a forged log of entries in entries is given up', async (t) => {
  const image = new DirtyImage(tempFolder(t), 'forged');
  for (let at = 0; at < LOG_LENGTH; at += SECTOR) {
    const entry = image.entry({ sequenceNumber: 1n });
    // Each claims the whole ring, so that each would have to be checksummed as a whole.
    entry.writeUInt32LE(LOG_LENGTH, 8);
    image.log(at, entry);
  }
  image.close();
  t.throws(() => openVhdx(image.path), {
    code: 'damaged',
    message: /full of entries that overlap/,
  });
});
