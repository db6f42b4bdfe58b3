/** Types of fuse-native 2.2.6, as far as native-channel.ts uses it; it brings none itself. */
declare module 'fuse-native' {
  namespace Fuse {
    /** Negative errno, or 0; `read` and `write` answer the bytes done. */
    type Done = (result: number) => void;

    interface Stat {
      mode: number;
      size: number;
      uid: number;
      gid: number;
      nlink: number;
      /** 512 bytes each. */
      blocks: number;
      blksize: number;
      /** Milliseconds since 1970. */
      atime: number;
      mtime: number;
      ctime: number;
    }

    /** All fields pass through 32 bits. */
    interface StatFs {
      bsize: number;
      frsize: number;
      blocks: number;
      bfree: number;
      bavail: number;
      namemax: number;
    }

    interface Operations {
      getattr(path: string, done: (result: number, stat?: Stat) => void): void;
      readdir(path: string, done: (result: number, names?: string[]) => void): void;
      statfs(path: string, done: (result: number, sizes?: StatFs) => void): void;
      open(path: string, flags: number, done: (result: number, fd?: number) => void): void;
      release(path: string, fd: number, done: Done): void;
      /** `buffer` lies in memory of the binding: it must not be touched after `done`. */
      read(
        path: string,
        fd: number,
        buffer: Buffer,
        length: number,
        offset: number,
        done: Done,
      ): void;
      write(
        path: string,
        fd: number,
        buffer: Buffer,
        length: number,
        offset: number,
        done: Done,
      ): void;
      fsync(path: string, dataOnly: number, fd: number, done: Done): void;
      truncate(path: string, size: number, done: Done): void;
      ftruncate(path: string, fd: number, size: number, done: Done): void;
      chmod(path: string, mode: number, done: Done): void;
      chown(path: string, uid: number, gid: number, done: Done): void;
      utimens(path: string, atime: number, mtime: number, done: Done): void;
      create(path: string, mode: number, done: Done): void;
      mknod(path: string, mode: number, device: number, done: Done): void;
      mkdir(path: string, mode: number, done: Done): void;
      unlink(path: string, done: Done): void;
      rmdir(path: string, done: Done): void;
      rename(from: string, to: string, done: Done): void;
      link(from: string, to: string, done: Done): void;
      symlink(from: string, to: string, done: Done): void;
    }

    interface Options {
      allowOther?: boolean;
      defaultPermissions?: boolean;
      fsname?: string;
      subtype?: string;
      /** false: operations may take as long as they take. */
      timeout?: false;
    }
  }

  class Fuse {
    constructor(mountpoint: string, operations: Fuse.Operations, options: Fuse.Options);
    mount(done: (error: Error | null) => void): void;
    unmount(done: (error: Error | null) => void): void;
    /** What `unmount` uses to take the mount away. */
    static unmount(mountpoint: string, done: (error: Error | null) => void): void;
  }

  export = Fuse;
}
