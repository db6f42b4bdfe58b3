export interface FileMap {
  /** What the mapping shows now. */
  read(): Buffer;
  unmap(): void;
}

export function mapFile(fd: number, length: number): FileMap;
