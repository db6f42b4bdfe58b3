/**
 * What may be typed, and that everything else is refused as `usage`, naming the option and showing
 * the way.
 */
import t from 'tap';
import {
  parseChoice,
  parseCount,
  parseDisk,
  parseDisks,
  parseName,
  parseNic,
  parseSizeOption,
  parseSnapshot,
  parseTarget,
  parseVm,
} from '../../src/cli/arguments.js';
import { DiskError } from '../../src/common/errors.js';

const GiB = 2 ** 30;

type Row = readonly [parse: (text: string) => unknown, text: string, result: unknown];

const size = (text: string) => parseSizeOption(text, '--memory');
const count = (text: string) => parseCount(text, '--vcpus');
const choice = (text: string) => parseChoice(text, '--mac', ['new', 'keep']);

const GOOD: readonly Row[] = [
  [size, '512', 512],
  [size, '0', 0],
  [size, '10G', 10 * GiB],
  [size, '10g', 10 * GiB],
  [size, '1.5TiB', 1536 * GiB],
  [size, '20GB', 20e9],
  [size, ' 2 MiB ', 2 * 2 ** 20],
  [size, '3s', 1536],
  [size, '64T', 64 * 1024 * GiB],
  [size, '2P', 2 ** 51],
  [count, '1', 1],
  [count, '0256', 256],
  [choice, 'keep', 'keep'],
  [parseVm, 'a', 'a'],
  [parseVm, '0.a_b-C', '0.a_b-C'],
  [parseVm, 'x'.repeat(64), 'x'.repeat(64)],
  [parseTarget, 'web', { vm: 'web' }],
  [parseTarget, 'web@s1', { vm: 'web', snapshot: 's1' }],
  [parseSnapshot, 'web@s1', { vm: 'web', snapshot: 's1' }],
  [parseDisk, '10G', { size: 10 * GiB }],
  [parseDisk, 'root=10G', { name: 'root', size: 10 * GiB }],
  [parseDisk, '1M,allocation=static', { size: 2 ** 20, allocation: 'static' }],
  [parseDisk, 'd=512,allocation=dynamic', { name: 'd', size: 512, allocation: 'dynamic' }],
  [parseNic, 'nat', { mode: 'nat' }],
  [parseNic, 'bridged,network=br0', { mode: 'bridged', network: 'br0' }],
  [parseNic, 'host-only,mac=AA-bb-CC-00-11-22', { mode: 'host-only', mac: 'aa:bb:cc:00:11:22' }],
  [parseNic, 'internal,network=a=b', { mode: 'internal', network: 'a=b' }],
];

const BAD: readonly (readonly [parse: (text: string) => unknown, text: string, says: RegExp])[] = [
  [size, '', /^--memory: "" is not a size$/],
  [size, 'ten', /^--memory: "ten" is not a size$/],
  [size, '10X', /^--memory: "10X"/],
  [size, '-1', /negative/],
  [size, '1.3', /not a whole number/],
  [size, '0.0001K', /not a whole number/],
  [size, '99999999T', /not a whole number/],
  [size, '1e3', /not a size/],
  [size, '0x10', /not a size/],
  [count, '0', /^--vcpus: "0" is not a whole number from 1$/],
  [count, '-1', /--vcpus/],
  [count, '1.5', /--vcpus/],
  [count, '1e3', /--vcpus/],
  [count, '', /--vcpus/],
  [count, '9'.repeat(20), /--vcpus/],
  [choice, 'old', /^--mac: unknown value "old"$/],
  [parseVm, '', /^VM: "" is not a name$/],
  [parseVm, 'a b', /"a b"/],
  [parseVm, '-a', /"-a"/],
  [parseVm, '../x', /is not a name/],
  [parseVm, 'x'.repeat(65), /is not a name/],
  [parseVm, 'web@s', /^VM: "web@s" names a snapshot$/],
  [parseTarget, '@s', /^VM: ""/],
  [parseTarget, 'web@', /^snapshot: ""/],
  [parseTarget, 'web@a@b', /^snapshot: "a@b"/],
  [parseSnapshot, 'web', /^"web" names no snapshot$/],
  [parseDisk, '', /^disk : ""/],
  [parseDisk, 'root=', /^disk root=: "" is not a size$/],
  [parseDisk, '=10G', /"" is not a name/],
  [parseDisk, 'a b=10G', /"a b" is not a name/],
  [parseDisk, '100', /below the minimum of 512/],
  [parseDisk, '513', /not a multiple of 512/],
  [parseDisk, '65T', /above the maximum of 64 TiB/],
  [parseDisk, '1P', /above the maximum of 64 TiB/],
  [parseDisk, '16E', /size "16E" is not a whole number of bytes that fits/],
  [parseDisk, '10G,static', /unknown part "static"/],
  [parseDisk, '10G,allocation=thick', /dynamic or static, not "thick"/],
  [parseDisk, '10G,allocation=', /"allocation" has no value/],
  [parseDisk, '10G,allocation=static,allocation=static', /given twice/],
  [parseNic, 'wifi', /^--nic wifi: unknown mode "wifi"$/],
  [parseNic, 'nat,mac=1', /"1" is not a MAC address/],
  [parseNic, 'nat,mac=00:11:22:33:44:5g', /not a MAC address/],
  [parseNic, 'nat,speed=10', /unknown part "speed=10"/],
];

t.test('good', async (t) => {
  for (const [parse, text, result] of GOOD) t.same(parse(text), result, `"${text}"`);
  t.same(parseTarget('web@s', 'root'), { vm: 'web', snapshot: 's', disk: 'root' });
  t.same(parseDisks(['1G', '1G', 'a=1G']).length, 3, 'nameless disks may be many');
});

t.test('bad', async (t) => {
  for (const [parse, text, says] of BAD) {
    try {
      t.fail(`"${text}" gave ${JSON.stringify(parse(text))}`);
    } catch (error) {
      if (!(error instanceof DiskError)) throw error;
      t.equal(error.code, 'usage', `"${text}"`);
      t.match(error.message, says);
      t.ok(error.hint !== undefined && !error.message.includes('\n'), 'one line and a hint');
    }
  }
  t.throws(() => parseDisks(['a=1G', 'a=2G']), { code: 'usage', message: /two disks are named/ });
  t.throws(() => parseDisks(['root=']), {
    message: /^--disk root=: "" is not a size$/,
  });
  // `disk add` has no such option.
  t.throws(() => parseDisk('1G,static'), {
    code: 'usage',
    hint: /^\[NAME=\]SIZE.*, for example root=20G$/,
  });
  t.throws(() => parseDisks(['1G,static']), {
    code: 'usage',
    hint: /^--disk \[NAME=\].*example --disk root=20G$/,
  });
  t.throws(() => parseTarget('web', 'a/b'), { code: 'usage', message: /^--disk: "a\/b"/ });
  t.throws(() => parseName('a/b', 'new name'), { message: 'new name: "a/b" is not a name' });
});
