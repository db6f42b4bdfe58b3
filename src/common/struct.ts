/**
 * Binary layouts as declarations: one field table gives the size, the offsets, the decoder and the
 * encoder.
 */
import { invariant } from './assert.js';

/** One field: how many bytes it takes and how they become a value. */
export interface Field<T> {
  readonly size: number;
  read(source: Buffer, at: number): T;
  write(target: Buffer, at: number, value: T): void;
}

export const u8: Field<number> = {
  size: 1,
  read: (source, at) => source.readUInt8(at),
  write: (target, at, value) => target.writeUInt8(value, at),
};

export const u16le: Field<number> = {
  size: 2,
  read: (source, at) => source.readUInt16LE(at),
  write: (target, at, value) => target.writeUInt16LE(value, at),
};

export const u16be: Field<number> = {
  size: 2,
  read: (source, at) => source.readUInt16BE(at),
  write: (target, at, value) => target.writeUInt16BE(value, at),
};

export const u32le: Field<number> = {
  size: 4,
  read: (source, at) => source.readUInt32LE(at),
  write: (target, at, value) => target.writeUInt32LE(value, at),
};

export const u32be: Field<number> = {
  size: 4,
  read: (source, at) => source.readUInt32BE(at),
  write: (target, at, value) => target.writeUInt32BE(value, at),
};

/** 64 bits stay a bigint until they pass `safeNumber`. */
export const u64le: Field<bigint> = {
  size: 8,
  read: (source, at) => source.readBigUInt64LE(at),
  write: (target, at, value) => target.writeBigUInt64LE(value, at),
};

export const u64be: Field<bigint> = {
  size: 8,
  read: (source, at) => source.readBigUInt64BE(at),
  write: (target, at, value) => target.writeBigUInt64BE(value, at),
};

/** `length` bytes as they are: decoded as a copy, encoded zero-padded. */
export function bytes(length: number): Field<Buffer> {
  return {
    size: length,
    read: (source, at) => Buffer.from(source.subarray(at, at + length)),
    write: (target, at, value) => {
      invariant(value.length <= length, `${value.length} bytes for a field of ${length}`);
      target.fill(0, at, at + length);
      value.copy(target, at);
    },
  };
}

/** A row of `count` equal fields. */
export function array<T>(item: Field<T>, count: number): Field<T[]> {
  return {
    size: item.size * count,
    read: (source, at) =>
      Array.from({ length: count }, (_, index) => item.read(source, at + index * item.size)),
    write: (target, at, values) => {
      invariant(values.length === count, `${values.length} values for an array of ${count}`);
      for (const [index, value] of values.entries()) {
        item.write(target, at + index * item.size, value);
      }
    },
  };
}

/** Field name -> field, in the order in which they lie in the file, without gaps. */
type FieldTable = Readonly<Record<string, Field<unknown>>>;

type Values<F extends FieldTable> = {
  -readonly [K in keyof F]: F[K] extends Field<infer T> ? T : never;
};

/** A declared record. It is a field itself, so records nest. */
export interface Struct<F extends FieldTable> extends Field<Values<F>> {
  readonly name: string;
  /** Byte offset of each field from the record's start. */
  readonly offsetOf: { readonly [K in keyof F]: number };
  /** Decodes the record at `at`; the buffer must hold all of it. */
  decode(source: Buffer, at?: number): Values<F>;
  /** The record's `size` bytes; fields not given are zero. */
  encode(values: Partial<Values<F>>): Buffer;
}

/** The object that a struct decodes to: `Decoded<typeof HEADER>`. */
export type Decoded<S> = S extends Struct<infer F> ? Values<F> : never;

/**
 * Declares a record.
 * @param size bytes that the specification gives for the whole of it; must equal the sum of the
 * fields.
 */
export function struct<const F extends FieldTable>(
  name: string,
  size: number,
  fields: F,
): Struct<F> {
  const entries = Object.entries(fields);
  const offsets: Record<string, number> = {};
  let end = 0;
  for (const [key, field] of entries) {
    offsets[key] = end;
    end += field.size;
  }
  invariant(end === size, `${name}: fields take ${end} bytes, the specification says ${size}`);

  function decode(source: Buffer, at = 0): Values<F> {
    const values: Record<string, unknown> = {};
    for (const [key, field] of entries) values[key] = field.read(source, at + offsets[key]!);
    return values as Values<F>;
  }

  function write(target: Buffer, at: number, values: Partial<Values<F>>): void {
    for (const [key, field] of entries) {
      const value: unknown = values[key];
      if (value !== undefined) field.write(target, at + offsets[key]!, value);
    }
  }

  return {
    name,
    size,
    offsetOf: offsets as { readonly [K in keyof F]: number },
    decode,
    encode(values) {
      const target = Buffer.alloc(size);
      write(target, 0, values);
      return target;
    },
    read: decode,
    write,
  };
}
