/**
 * Open descriptors that go from one process to another over a unix socket (SCM_RIGHTS): fusermount
 * hands over the mount's, the supervisor keeps it from one daemon to the next.
 */
import { addressOf, receiveMessage, SCM_RIGHTS, SOL_SOCKET, sendMessage } from './libc.js';

/** Where the parts of a message lie that carries one byte and has room for one descriptor. */
const MESSAGE = { header: 0, vector: 56, control: 72, payload: 96, length: 97 } as const;
/** Length of a struct cmsghdr with one descriptor, without the padding after it. */
const CONTROL_LENGTH = 20;

/** All structures in one piece of memory (64 bit): see recvmsg(2) and cmsg(3). */
function descriptorMessage(): Buffer {
  const message = Buffer.alloc(MESSAGE.length);
  const start = addressOf(message);
  // struct msghdr: iov at 16, iovlen at 24, control at 32, controllen at 40.
  message.writeBigUInt64LE(start + BigInt(MESSAGE.vector), 16);
  message.writeBigUInt64LE(1n, 24);
  message.writeBigUInt64LE(start + BigInt(MESSAGE.control), 32);
  message.writeBigUInt64LE(BigInt(MESSAGE.payload - MESSAGE.control), 40);
  message.writeBigUInt64LE(start + BigInt(MESSAGE.payload), MESSAGE.vector);
  message.writeBigUInt64LE(1n, MESSAGE.vector + 8);
  return message;
}

/**
 * Receives one descriptor sent with SCM_RIGHTS over `socket` (blocks until a message is there).
 * @returns undefined when the peer closed its end without sending one.
 */
export function receiveDescriptor(socket: number): number | undefined {
  const message = descriptorMessage();
  if (receiveMessage(socket, message) === 0) return undefined;
  // struct cmsghdr: length 8 bytes, level 4, type 4, then the descriptor.
  const control = message.subarray(MESSAGE.control);
  if (control.readInt32LE(8) !== SOL_SOCKET || control.readInt32LE(12) !== SCM_RIGHTS) {
    return undefined;
  }
  return control.readInt32LE(16);
}

/** Sends one descriptor with SCM_RIGHTS: the receiver gets a copy of its own. */
export function sendDescriptor(socket: number, fd: number): void {
  const message = descriptorMessage();
  const control = message.subarray(MESSAGE.control);
  control.writeBigUInt64LE(BigInt(CONTROL_LENGTH), 0);
  control.writeInt32LE(SOL_SOCKET, 8);
  control.writeInt32LE(SCM_RIGHTS, 12);
  control.writeInt32LE(fd, 16);
  sendMessage(socket, message);
}
