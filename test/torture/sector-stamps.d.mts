/** Types of sector-stamps.mjs. */
export function fillSectors(generation: number, first: number, count: number): Buffer;
export function generationsOf(bytes: Buffer): Uint32Array;
