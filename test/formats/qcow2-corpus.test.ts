/** qcow2 images of other makers, crafted and damaged ones, each judged by the corpus' manifest. */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import t from 'tap';
import { openChain } from '../../src/formats/open-chain.js';
import {
  checkCorpusImage,
  corpusFolder,
  corpusImages,
  unpack,
  unpackArchives,
} from '../support/chain-corpus.js';
import { nonZeroDigest, readChain } from '../support/chain-reader.js';
import { tempFolder } from '../support/temp-folder.js';

t.test('qcow2 corpus', async (t) => {
  const corpus = corpusFolder(t);
  if (corpus === undefined) return;
  const folder = tempFolder(t);
  unpackArchives(corpus, 'qcow2-', folder);
  const images = corpusImages(corpus, 'qcow2');
  const undamaged = () => {
    const sound = images.find((image) => image.id === 'qcow2-dirty')!;
    const chain = openChain(unpack(corpus, sound, folder));
    const content = readChain(chain, 0, chain[0]!.virtualSize);
    for (const image of chain) image.close();
    const hash = createHash('sha256').update(content).digest('hex');
    t.equal(hash, sound.undamaged_sha256, 'the undamaged content');
    return content;
  };
  for (const image of images) {
    const path = unpack(corpus, image, folder);
    checkCorpusImage(t, image, path, undamaged);
    for (const { main, virtual_size, nz64k } of image.also ?? []) {
      const chain = openChain(join(path, '..', main));
      t.equal(chain[0]!.virtualSize, virtual_size);
      t.equal(nonZeroDigest(chain).digest, nz64k, `${image.id}: ${main}`);
      for (const one of chain) one.close();
    }
  }
});
