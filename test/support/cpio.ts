/** Archives as the Linux kernel unpacks them for an initramfs: cpio, format "newc". */

export type CpioEntry =
  | { readonly name: string; readonly folder: true }
  | { readonly name: string; readonly link: string }
  | { readonly name: string; readonly data: Buffer };

const FOLDER = 0o040755;
const PROGRAM = 0o100755;
const LINK = 0o120777;

export function cpioArchive(entries: readonly CpioEntry[]): Buffer {
  const parts = entries.flatMap((entry, index) => {
    if ('folder' in entry) return member(index + 1, entry.name, FOLDER, Buffer.alloc(0));
    if ('link' in entry) return member(index + 1, entry.name, LINK, Buffer.from(entry.link));
    return member(index + 1, entry.name, PROGRAM, entry.data);
  });
  return Buffer.concat([...parts, ...member(0, 'TRAILER!!!', 0, Buffer.alloc(0))]);
}

function member(inode: number, name: string, mode: number, data: Buffer): Buffer[] {
  // inode, mode, uid, gid, links, mtime, size, device and rdevice (two each), name's size,
  // checksum.
  const fields = [inode, mode, 0, 0, 1, 0, data.length, 0, 0, 0, 0, name.length + 1, 0];
  const numbers = fields.map((field) => field.toString(16).padStart(8, '0')).join('');
  const head = Buffer.from(`070701${numbers}${name}\0`);
  return [padded(head), padded(data)];
}

function padded(data: Buffer): Buffer {
  return Buffer.concat([data, Buffer.alloc((4 - (data.length % 4)) % 4)]);
}
