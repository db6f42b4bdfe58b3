/**
 * The second copy of every manifest, `vms/NAME.json.copy`: what `check --repair` takes when the
 * manifest itself is damaged.
 *
 * The rename of the manifest stays the one commit point. The copy is written, durable, before it,
 * and gets its name right after it, in the same tick; both names are made durable by one sync. So a
 * copy is behind only after a crash between two renames; the next start makes it anew. It is never
 * in force, and losing it loses nothing. A copy alone means a lost manifest, and a power cut may
 * keep either of two renames: so a new VM's copy gets its name when its manifest is durable, and
 * goes durably before its manifest goes. That name becomes durable with the next change in the
 * folder or by the host itself; after a power cut before that the next start makes the copy anew.
 */
import { together } from '../../common/together.js';
import {
  type DurableFiles,
  type PendingFile,
  prepareFile,
  replaceFile,
} from '../../storage/atomic-write.js';
import { readText, removeFile } from '../../storage/small-files.js';
import { type Manifest, parseManifest } from './manifest.js';
import { copyPath, manifestPath, type StoreLayout } from './store-layout.js';

export class ManifestCopies {
  readonly #layout: StoreLayout;
  readonly #files: DurableFiles;

  constructor(layout: StoreLayout, files: DurableFiles) {
    this.#layout = layout;
    this.#files = files;
  }

  /**
   * A new manifest together with its copy.
   * @param isNew there is no manifest of that name yet: the copy gets its name only when the
   * manifest is durable, because a copy alone means a lost manifest.
   */
  async prepare(vm: string, text: string, isNew: boolean): Promise<PendingFile> {
    const [copy, main] = await this.#prepareBoth(vm, text);
    const nameCopy = () => {
      try {
        copy.commit();
      } catch {
        // The change stands. The copy is behind until the next change or start.
      }
    };
    return {
      commit() {
        main.commit();
        if (!isNew) nameCopy();
      },
      async settle() {
        await main.settle();
        if (isNew) nameCopy();
      },
      async abandon() {
        await copy.abandon();
        await main.abandon();
      },
    };
  }

  /** Both files, made durable at the same time. */
  async #prepareBoth(vm: string, text: string): Promise<[copy: PendingFile, main: PendingFile]> {
    const files = this.#files;
    const both = [
      prepareFile(files, copyPath(this.#layout, vm), text, 'manifest-copy'),
      prepareFile(files, manifestPath(this.#layout, vm), text, 'manifest'),
    ] as const;
    try {
      return await together<[PendingFile, PendingFile]>(both);
    } catch (error) {
      // The first error is the one to report; a leftover is removed at the next start.
      const abandon = (pending: PendingFile) => pending.abandon();
      for (const each of both) await each.then(abandon).catch(() => undefined);
      throw error;
    }
  }

  /** @returns the copy's text, undefined when there is none that is good. */
  read(vm: string): { readonly text: string; readonly manifest: Manifest } | undefined {
    try {
      const text = readText(copyPath(this.#layout, vm));
      return text === undefined ? undefined : { text, manifest: parseManifest(vm, text) };
    } catch {
      // Damaged or unreadable: as good as none. Its own finding is made by `check`.
      return undefined;
    }
  }

  /** Whether the copy says what the manifest says; one that can't be read does not. */
  compare(vm: string): 'same' | 'different' | 'missing' {
    try {
      const copy = readText(copyPath(this.#layout, vm));
      if (copy === undefined) return 'missing';
      return copy === readText(manifestPath(this.#layout, vm)) ? 'same' : 'different';
    } catch {
      // What is wrong with it is for `check` to say.
      return 'different';
    }
  }

  /** Makes the copy say what the manifest says. */
  async refresh(vm: string): Promise<void> {
    const text = readText(manifestPath(this.#layout, vm));
    if (text === undefined) return;
    await replaceFile(this.#files, copyPath(this.#layout, vm), text, 'manifest-copy');
  }

  /**
   * Before the manifest goes or gets another name, durably: a copy is never all that there is.
   */
  async remove(vm: string): Promise<void> {
    removeFile(copyPath(this.#layout, vm), 'manifest-copy.remove');
    await this.#files.syncFolder(this.#layout.vms, 'manifest-copy.sync-folder');
  }
}
