/** Values in machine files by table: units, addresses, names. */
import t from 'tap';
import { allocationUnit } from '../../src/machines/ovf-units.js';
import { macAddress, namesToTry, timeOf } from '../../src/machines/values.js';
import { parseXml } from '../../src/machines/xml.js';
import { nameFrom } from '../../src/vm/exchange/machine-plan.js';

t.test('units of OVF', async (t) => {
  for (const [text, bytes] of [
    ['byte * 2^20', 2 ** 20],
    ['byte*2^30', 2 ** 30],
    ['byte * 1024', 1024],
    ['byte * 10^6', 10 ** 6],
    ['byte * 2^10 * 2^10', 2 ** 20],
    ['MegaBytes', 2 ** 20],
    ['GB', 2 ** 30],
    ['KB', 2 ** 10],
    ['MiB', 2 ** 20],
    ['megabyte', 2 ** 20],
    ['Gibibytes', 2 ** 30],
    ['B', 1],
    [' byte * +2 ^ +20 ', 2 ** 20],
    ['byte*1073741824', 2 ** 30],
    [undefined, 7],
    ['', 7],
  ] as const) {
    t.equal(allocationUnit('f', text, 7), bytes, String(text));
  }
  for (const text of ['bits', 'byte * x', 'byte * 2^99', 'byte * 0', 'byte *', 'byte * 1.5']) {
    t.throws(() => allocationUnit('f', text, 1), { code: 'not-supported' }, text);
  }
});

t.test('addresses, names and times', async (t) => {
  t.equal(macAddress('080027ABCDEF'), '08:00:27:ab:cd:ef');
  t.equal(macAddress('08-00-27-AB-CD-EF'), '08:00:27:ab:cd:ef');
  t.equal(macAddress('08002'), undefined);
  t.equal(macAddress(undefined), undefined);
  t.strictSame(namesToTry('Snapshots/{a}.vdi'), ['Snapshots/{a}.vdi', '{a}.vdi']);
  t.strictSame(namesToTry('Snapshots\\{a}.vdi'), ['Snapshots/{a}.vdi', '{a}.vdi']);
  t.strictSame(namesToTry('C:\\VMs\\a.vdi'), ['a.vdi']);
  t.strictSame(namesToTry('\\\\server\\share\\a.vdi'), ['a.vdi']);
  t.strictSame(namesToTry('a.vdi'), ['a.vdi']);
  t.equal(timeOf(Number.NaN), undefined);
  t.equal(timeOf(-1), undefined);
  t.equal(timeOf(1e20), undefined);
  t.equal(timeOf(0)?.toISOString(), '1970-01-01T00:00:00.000Z');
  for (const [text, name] of [
    ['web', 'web'],
    ['My machine (2)', 'My-machine-2'],
    ['Büro & Café', 'Buro-Cafe'],
    ['..', 'x'],
    ['日本', 'x'],
    ['../../etc', 'etc'],
    ['', 'x'],
    ['a'.repeat(100), 'a'.repeat(64)],
  ] as const) {
    t.equal(nameFrom(text, 'x'), name, text);
  }
});

t.test('XML in other encodings, and what it writes in other words', async (t) => {
  const text = '<?xml version="1.0"?><a b="&lt;&#x42;&#67;&unknown;"><![CDATA[<c>]]> d</a>';
  for (const bytes of [
    Buffer.from(text),
    Buffer.from(`\ufeff${text}`),
    Buffer.from(`\ufeff${text}`, 'utf16le'),
    Buffer.from(`\ufeff${text}`, 'utf16le').swap16(),
  ]) {
    const root = parseXml('f', bytes);
    t.equal(root.attribute('b'), '<BC&unknown;');
    t.equal(root.text, '<c> d');
  }
  const latin = Buffer.from('<?xml version="1.0" encoding="ISO-8859-1"?><a>\xe9</a>', 'latin1');
  t.equal(parseXml('f', latin).text, 'é');
});
