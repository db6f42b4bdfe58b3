export interface FileMap {
  /** What the mapping shows now. */
  read(): Buffer;
  unmap(): void;
}

export interface WritableMap {
  write(offset: number, bytes: Buffer): void;
  unmap(): void;
}

export function mapForWriting(fd: number, length: number): WritableMap;
export function mapFile(fd: number, length: number): FileMap;
