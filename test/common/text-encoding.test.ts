/** Text in other encodings: windows-1252 most of all, which Node takes for Latin-1. */
import t from 'tap';
import { textIn } from '../../src/common/text-encoding.js';

t.test('text in other encodings', async (t) => {
  const all = Uint8Array.from({ length: 256 }, (_, byte) => byte);
  const text = textIn('windows-1252', all);
  t.equal(text.length, 256);
  t.equal(text.slice(0x20, 0x7f), Buffer.from(all).toString('latin1', 0x20, 0x7f));
  t.equal(text.slice(0xa0), Buffer.from(all).toString('latin1', 0xa0));
  t.equal(text[0x80], '\u20ac');
  t.equal(text.slice(0x91, 0x98), '\u2018\u2019\u201c\u201d\u2022\u2013\u2014');
  t.equal(text[0x9f], '\u0178');
  t.equal(new Set(text).size, 256, 'each byte is a character of its own');
  t.equal(textIn('CP1252', Uint8Array.of(0x92)), '\u2019', 'by another name');
  t.equal(textIn('windows-1250', Uint8Array.of(0x92, 0xe8)), '\u2019\u010d');
  t.equal(textIn('utf-8', Buffer.from('\u0080\u20ac')), '\u0080\u20ac');
  t.throws(() => textIn('klingon', all), RangeError);
});
