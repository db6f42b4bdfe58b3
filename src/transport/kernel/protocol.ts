/**
 * Numbers of the kernel's FUSE protocol (include/uapi/linux/fuse.h, protocol 7.45): operation
 * codes, flags and where each field lies. Messages are arrays of 32-bit words in host order; a
 * 64-bit field is two of them, low half first.
 */

export const FUSE_MAJOR = 7;
/** The newest minor version that the fields below follow. */
export const FUSE_MINOR = 40;

export const OPCODE = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  READLINK: 5,
  SYMLINK: 6,
  MKNOD: 8,
  MKDIR: 9,
  UNLINK: 10,
  RMDIR: 11,
  RENAME: 12,
  LINK: 13,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  INIT: 26,
  OPENDIR: 27,
  READDIR: 28,
  RELEASEDIR: 29,
  CREATE: 35,
  INTERRUPT: 36,
  DESTROY: 38,
  IOCTL: 39,
  NOTIFY_REPLY: 41,
  BATCH_FORGET: 42,
  FALLOCATE: 43,
  READDIRPLUS: 44,
  RENAME2: 45,
  LSEEK: 46,
} as const;

/** struct fuse_in_header: word indexes. */
export const IN_LENGTH = 0;
export const IN_OPCODE = 1;
export const IN_UNIQUE = 2;
export const IN_NODE = 4;
export const IN_PID = 8;
/** First word of the body. */
const IN_BODY = 10;
export const IN_HEADER_BYTES = 40;

/** The body's first field wherever a request belongs to an open file or directory. */
export const IN_HANDLE = IN_BODY;
/** fuse_read_in, fuse_write_in, fuse_fallocate_in, fuse_lseek_in agree on these. */
export const IN_OFFSET = IN_BODY + 2;
export const READ_SIZE = IN_BODY + 4;
export const WRITE_SIZE = IN_BODY + 4;
/** O_* of the file that is written through, with O_DSYNC for RWF_DSYNC. */
export const WRITE_FLAGS = IN_BODY + 8;
export const WRITE_HEADER_BYTES = IN_HEADER_BYTES + 40;
export const FALLOCATE_LENGTH = IN_BODY + 4;
export const FALLOCATE_MODE = IN_BODY + 6;
export const LSEEK_WHENCE = IN_BODY + 4;
export const OPEN_FLAGS = IN_BODY;

/** struct fuse_setattr_in. */
export const SETATTR_VALID = IN_BODY;
export const SETATTR_SIZE = IN_BODY + 4;
export const SETATTR_MODE = IN_BODY + 17;
export const SETATTR_UID = IN_BODY + 19;
export const SETATTR_GID = IN_BODY + 20;

export const FATTR_MODE = 1 << 0;
export const FATTR_UID = 1 << 1;
export const FATTR_GID = 1 << 2;
export const FATTR_SIZE = 1 << 3;
export const FATTR_FH = 1 << 6;

/** struct fuse_init_in. */
export const INIT_IN_MINOR = IN_BODY + 1;
export const INIT_IN_READAHEAD = IN_BODY + 2;
export const INIT_IN_FLAGS = IN_BODY + 3;
export const INIT_IN_FLAGS2 = IN_BODY + 4;

/** struct fuse_out_header: word indexes, and the first word of the body. */
export const OUT_LENGTH = 0;
export const OUT_ERROR = 1;
export const OUT_UNIQUE = 2;
export const OUT_BODY = 4;
export const OUT_HEADER_BYTES = 16;

export const ATTR_BYTES = 88;
export const ATTR_OUT_BYTES = 16 + ATTR_BYTES;
export const ENTRY_OUT_BYTES = 40 + ATTR_BYTES;
export const OPEN_OUT_BYTES = 16;
export const STATFS_OUT_BYTES = 80;
export const WRITE_OUT_BYTES = 8;
export const LSEEK_OUT_BYTES = 8;
export const INIT_OUT_BYTES = 64;
export const DIRENT_HEADER_BYTES = 24;

/** Flags of INIT, first word. */
export const INIT = {
  ASYNC_READ: 1 << 0,
  BIG_WRITES: 1 << 5,
  DO_READDIRPLUS: 1 << 13,
  READDIRPLUS_AUTO: 1 << 14,
  ASYNC_DIO: 1 << 15,
  WRITEBACK_CACHE: 1 << 16,
  PARALLEL_DIROPS: 1 << 18,
  MAX_PAGES: 1 << 22,
  INIT_EXT: 1 << 30,
} as const;

/** Flags of INIT, second word (bits 32 and up). */
export const INIT2 = {
  DIRECT_IO_ALLOW_MMAP: 1 << 4,
  PASSTHROUGH: 1 << 5,
  HAS_RESEND: 1 << 7,
} as const;

export const FOPEN_DIRECT_IO = 1 << 0;
export const FOPEN_KEEP_CACHE = 1 << 1;
export const FOPEN_PARALLEL_DIRECT_WRITES = 1 << 6;
export const FOPEN_PASSTHROUGH = 1 << 7;

export const NOTIFY_INVAL_INODE = 2;
export const NOTIFY_INVAL_ENTRY = 3;
export const NOTIFY_RESEND = 7;

export const DT_DIR = 4;
export const DT_REG = 8;

/**
 * What a file handle (64 bits, ours to choose) is: the low half is the device handle of the
 * namespace, or a number that the channel gave; of the high half, the low byte says which, and the
 * rest keeps handles of several daemons on one mount apart.
 */
export const HANDLE_KIND = 0xff;
export const HANDLE_DEVICE = 0;
export const HANDLE_CONTENT = 1;
export const HANDLE_DIRECTORY = 2;
/** The rest counts up to here, then from 0 again. */
export const HANDLE_SERIALS = 1 << 24;

/** High half of the number of a request that was sent again (NOTIFY_RESEND): its top bit. */
export const UNIQUE_RESENT = 0x80000000;

/** Bytes of the largest READ and WRITE: 256 pages, the kernel's default limit. */
export const MAX_REQUEST_BYTES = 1024 * 1024;
export const MAX_REQUEST_PAGES = 256;

/** 2^32, what the high half of a 64-bit field counts. */
export const HIGH_HALF = 4294967296;
