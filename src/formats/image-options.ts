/** What a format's `open` may be told besides the path. */
import type { FileWindow } from '../storage/host-file.js';

export interface ImageOptions {
  /**
   * Absolute folders besides the image's own in which files may lie that the image consists of or
   * stands on (VMDK extents, a qcow2 data file, parents).
   */
  readonly allowFolders?: readonly string[];
  /**
   * The image is this part of the file (a member of an OVA). It must be all there is of it: one
   * that names further files is refused.
   */
  readonly window?: FileWindow;
  /** Name or id of the internal snapshot to show instead of the present state. */
  readonly snapshot?: string;
}
