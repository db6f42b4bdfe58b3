/** What a format's `open` may be told besides the path. */

export interface ImageOptions {
  /**
   * Absolute folders besides the image's own in which files may lie that the image consists of or
   * stands on (VMDK extents, a qcow2 data file, parents).
   */
  readonly allowFolders?: readonly string[];
}
