/*
 * The limit that the benchmark measures against: a /dev/fuse daemon that does nothing but pread and
 * pwrite on one file, with as many threads as it is told. No layers, no snapshots, no promises.
 *
 * limit BACKING MOUNTPOINT THREADS     shows MOUNTPOINT/disk until it is unmounted
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PAGE = 4096, MAX_IO = 1 << 20, FILE_NODE = 2 };

static int device, backing;
static uint64_t size;

static void answer(uint64_t unique, int error, const void *body, size_t length) {
  struct fuse_out_header head = {.len = sizeof head + length, .error = -error, .unique = unique};
  struct iovec parts[2] = {{&head, sizeof head}, {(void *)body, length}};
  /* ENOENT: the request was interrupted, nobody waits any more. */
  if (writev(device, parts, length ? 2 : 1) < 0 && errno != ENOENT) perror("limit: reply");
}

static struct fuse_attr attributes(uint64_t node) {
  struct fuse_attr attr = {.ino = node, .nlink = 1, .blksize = PAGE};
  if (node == FUSE_ROOT_ID) {
    attr.mode = S_IFDIR | 0755;
    attr.nlink = 2;
  } else {
    attr.mode = S_IFREG | 0600;
    attr.size = size;
    attr.blocks = size / 512;
  }
  return attr;
}

static void init(const struct fuse_in_header *in, const struct fuse_init_in *asked) {
  const uint32_t wanted = FUSE_ASYNC_READ | FUSE_BIG_WRITES | FUSE_ASYNC_DIO |
                          FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES;
  struct fuse_init_out out = {
      .major = FUSE_KERNEL_VERSION,
      .minor = FUSE_KERNEL_MINOR_VERSION,
      .max_readahead = asked->max_readahead,
      .flags = asked->flags & wanted,
      .max_background = 64,
      .congestion_threshold = 48,
      .max_write = MAX_IO,
      .time_gran = 1,
      .max_pages = MAX_IO / PAGE,
  };
  answer(in->unique, 0, &out, sizeof out);
}

static void serve(const struct fuse_in_header *in, const void *body, char *payload) {
  switch (in->opcode) {
    case FUSE_INIT:
      init(in, body);
      return;
    case FUSE_LOOKUP:
      if (in->nodeid != FUSE_ROOT_ID || strcmp(body, "disk") != 0) {
        answer(in->unique, ENOENT, NULL, 0);
      } else {
        struct fuse_entry_out out = {
            .nodeid = FILE_NODE, .entry_valid = 60, .attr_valid = 60, .attr = attributes(FILE_NODE)};
        answer(in->unique, 0, &out, sizeof out);
      }
      return;
    case FUSE_GETATTR: {
      struct fuse_attr_out out = {.attr_valid = 60, .attr = attributes(in->nodeid)};
      answer(in->unique, 0, &out, sizeof out);
      return;
    }
    case FUSE_OPEN:
    case FUSE_OPENDIR: {
      const struct fuse_open_in *open = body;
      int direct = (open->flags & O_DIRECT) != 0;
      struct fuse_open_out out = {
          .open_flags = direct ? FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES : FOPEN_KEEP_CACHE};
      answer(in->unique, 0, &out, sizeof out);
      return;
    }
    case FUSE_READ: {
      const struct fuse_read_in *read = body;
      ssize_t count = pread(backing, payload, read->size, read->offset);
      /* The header lies right before the payload, which begins a page: one write, well aligned. */
      struct fuse_out_header *head = (void *)(payload - sizeof *head);
      *head = (struct fuse_out_header){.len = sizeof *head, .unique = in->unique};
      if (count < 0) head->error = -errno;
      else head->len += count;
      if (write(device, head, head->len) < 0 && errno != ENOENT) perror("limit: reply");
      return;
    }
    case FUSE_WRITE: {
      const struct fuse_write_in *write = body;
      ssize_t count = pwrite(backing, write + 1, write->size, write->offset);
      struct fuse_write_out out = {.size = count < 0 ? 0 : count};
      answer(in->unique, count < 0 ? errno : 0, &out, count < 0 ? 0 : sizeof out);
      return;
    }
    case FUSE_FSYNC:
      answer(in->unique, fdatasync(backing) < 0 ? errno : 0, NULL, 0);
      return;
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
    case FUSE_DESTROY:
      answer(in->unique, 0, NULL, 0);
      return;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
      return;
    default:
      answer(in->unique, ENOSYS, NULL, 0);
  }
}

static void *work(void *unused) {
  /* Requests begin so that the data of a write is page-aligned. */
  const size_t before = PAGE - sizeof(struct fuse_in_header) - sizeof(struct fuse_write_in);
  char *memory, *replies;
  if (posix_memalign((void **)&memory, PAGE, MAX_IO + 2 * PAGE) != 0 ||
      posix_memalign((void **)&replies, PAGE, MAX_IO + PAGE) != 0) {
    fprintf(stderr, "limit: no memory\n");
    exit(1);
  }
  char *request = memory + before;
  for (;;) {
    ssize_t length = read(device, request, MAX_IO + PAGE);
    if (length < 0) {
      if (errno == EINTR || errno == EAGAIN || errno == ENOENT) continue;
      return unused; /* ENODEV: unmounted. */
    }
    const struct fuse_in_header *in = (void *)request;
    serve(in, in + 1, replies + PAGE);
  }
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: limit BACKING MOUNTPOINT THREADS\n");
    return 2;
  }
  struct stat stat;
  backing = open(argv[1], O_RDWR | O_CLOEXEC);
  device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (backing < 0 || device < 0 || fstat(backing, &stat) < 0) {
    perror("limit: open");
    return 1;
  }
  size = stat.st_size;
  char options[128];
  snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", device);
  if (mount("limit", argv[2], "fuse.limit", MS_NOSUID | MS_NODEV, options) < 0) {
    perror("limit: mount");
    return 1;
  }
  int threads = atoi(argv[3]);
  pthread_t others[64];
  for (int i = 1; i < threads && i < 64; i++) pthread_create(&others[i], NULL, work, NULL);
  work(NULL);
  return 0;
}
