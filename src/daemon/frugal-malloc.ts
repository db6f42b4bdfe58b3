/**
 * Has the C library's malloc give back what is free. Left to itself, glibc's raises the size from
 * which on a block is a mapping of its own to that of the largest one that was freed (32 MiB at
 * most). What jobs work with, buffers and maps of a MiB or so that V8 frees a while later, then
 * comes from the arenas of malloc and leaves holes in them that stay resident: a daemon that merges
 * all day takes two or three times the memory that it uses; see native-notes/shared-memory.md.
 */
import { KiB, MiB } from '../common/units.js';
import { M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, setMallocOption } from '../storage/libc.js';

/** What glibc begins with; to set it keeps it there. */
const OWN_MAPPING_BYTES = 128 * KiB;
/** Free bytes at the end of an arena that go back to the host. */
const TRIM_BYTES = MiB;

/** For the whole process; to be called before it has much. */
export function makeMallocFrugal(): void {
  setMallocOption(M_MMAP_THRESHOLD, OWN_MAPPING_BYTES);
  setMallocOption(M_TRIM_THRESHOLD, TRIM_BYTES);
}
