/** Tables, trees, progress and durations, as people see them. */
import t from 'tap';
import { Output } from '../../src/cli/output.js';
import { formatDuration, ProgressView } from '../../src/cli/progress.js';
import { fieldLines, tableLines } from '../../src/cli/table.js';
import { treeLines, treeNames } from '../../src/cli/tree-view.js';
import { shortTime } from '../../src/cli/views.js';
import type { TreeNode } from '../../src/control/protocol.js';

/** A stream that keeps what was written. */
const PLAIN_ENV = { LANG: 'C.UTF-8', NO_COLOR: '1' };

function paper(terminal: boolean, env: NodeJS.ProcessEnv = PLAIN_ENV, columns = 100) {
  const written: string[] = [];
  const stream = {
    isTTY: terminal,
    columns,
    write: (text: string) => written.push(text),
  };
  return { output: new Output(stream, env, true), written };
}

t.test('columns are as wide as their widest cell', async (t) => {
  const { output } = paper(false);
  const columns = [
    { title: 'NAME', cell: (row: { name: string; size: number }) => row.name },
    { title: 'SIZE', align: 'right' as const, cell: (row: { size: number }) => String(row.size) },
    { title: 'NOTE', cell: () => '' },
  ];
  const rows = [
    { name: 'e\u0301t\u00e9', size: 5 },
    { name: 'long-name', size: 123456 },
    { name: 'a\u001b[31m\n', size: 1 },
  ];
  t.same(tableLines(output, columns, rows), [
    'NAME         SIZE  NOTE',
    'e\u0301t\u00e9             5',
    'long-name  123456',
    'a?[31m?         1',
  ]);
  t.same(tableLines(output, columns, []), ['NAME  SIZE  NOTE']);
  const fields = [
    ['a', '1'],
    ['none', undefined],
    ['longer', '2\t3'],
  ] as const;
  t.same(fieldLines(output, fields), ['a:      1', 'longer: 2?3']);
});

t.test('a line keeps its styles and nothing else that a terminal obeys', async (t) => {
  const rest = ' /a\u001b]0;title\u0007\u009b31m\u202eb\r\nc';
  const { output, written } = paper(true, { LANG: 'C.UTF-8' });
  output.plainLine(`${output.style('bold', 'accepted')}${rest}`);
  t.same(written, ['\u001b[1maccepted\u001b[0m /a?]0;title??31m?b??c\n']);
  const file = paper(false);
  file.output.plainLine(`${file.output.style('bold', 'accepted')}\u001b[31m${rest}`);
  t.same(file.written, ['accepted?[31m /a?]0;title??31m?b??c\n']);
});

const TREE: TreeNode = {
  kind: 'vm',
  name: 'web',
  children: [
    {
      kind: 'snapshot',
      name: 'a',
      created: '2026-01-02T03:04:05Z',
      children: [
        { kind: 'snapshot', name: 'b', children: [{ kind: 'current', name: '', children: [] }] },
        { kind: 'snapshot', name: 'c', message: 'x\ny', clones: ['t1', 't2'], children: [] },
      ],
    },
    { kind: 'snapshot', name: 'd', children: [] },
  ],
};

t.test('trees', async (t) => {
  t.same(treeLines(paper(true).output, [TREE]), [
    'web',
    '├── a  2026-01-02 03:04:05',
    '│   ├── b',
    '│   │   └── * (current state)',
    '│   └── c  x?y  [clones: t1, t2]',
    '└── d',
  ]);
  t.same(treeNames([TREE]), ['web', 'web@a', 'web@b', 'web@c', 'web@d']);
  let deep: TreeNode = { kind: 'current', name: '', children: [] };
  for (let depth = 0; depth < 20_000; depth++) {
    deep = { kind: 'snapshot', name: `s${depth}`, children: [deep] };
  }
  t.equal(treeNames([deep]).length, 20_000, 'however deep');
  t.equal(shortTime('yesterday'), 'yesterday');
});

t.test('progress: a bar on a terminal', async (t) => {
  const { output, written } = paper(true);
  let now = 0;
  const view = new ProgressView(output, 'auto', () => now);
  const show = (doneBytes: number) =>
    view.show({ id: 1, what: 'copying', doneBytes, totalBytes: 10 * 2 ** 20 });
  view.clear();
  t.same(written, [], 'nothing to take away');
  show(0);
  now = 50;
  show(2 ** 20);
  now = 1000;
  show(5 * 2 ** 20);
  view.clear();
  t.same(written, [
    '\r\u001b[2K[░░░░░░░░░░░░░░░░░░░░░░░░] copying: 0 % 0 B of 10 MiB',
    '\r\u001b[2K[████████████░░░░░░░░░░░░] copying: 50 % 5 MiB of 10 MiB, 5 MiB/s, 0:01 left',
    '\r\u001b[2K',
  ]);
});

t.test('progress: what does not fit is the bar', async (t) => {
  const text = 'exporting web: 50 % 5 GiB of 10 GiB, 5 GiB/s, 0:01 left';
  const least = text.length + '[......] '.length + 1;
  for (const columns of [80, least, least - 1, text.length + 1, 40]) {
    const { output, written } = paper(true, PLAIN_ENV, columns);
    let now = 0;
    const view = new ProgressView(output, 'auto', () => now);
    const show = (doneBytes: number) =>
      view.show({ id: 1, what: 'exporting web', doneBytes, totalBytes: 10 * 2 ** 30 });
    show(0);
    now = 1000;
    show(5 * 2 ** 30);
    const [, drawn = ''] = written[1]?.split('\u001b[2K') ?? [];
    t.ok(drawn.length < columns, `${columns} columns`);
    t.ok(drawn.endsWith(text.slice(0, columns - 1)), drawn);
    t.equal(drawn.startsWith('['), columns >= least, drawn);
  }
});

t.test('progress: lines, or nothing', async (t) => {
  const { output, written } = paper(false);
  let now = 0;
  const view = new ProgressView(output, 'plain', () => now);
  for (let step = 0; step <= 100; step++) {
    now = step * 50;
    view.show({ id: 1, what: 'a\u001b', doneBytes: step, totalBytes: 100 });
  }
  t.same(written, [
    'a?: 0 % 0 B of 100 B\n',
    'a?: 40 % 40 B of 100 B, 20 B/s, 0:03 left\n',
    'a?: 80 % 80 B of 100 B, 20 B/s, 0:01 left\n',
    'a?: 100 % 100 B of 100 B, 20 B/s, 0:00 left\n',
  ]);
  const quiet = paper(true);
  const none = new ProgressView(quiet.output, 'none');
  none.show({ id: 1, what: 'a', doneBytes: 1, totalBytes: 0 });
  const silent = paper(false);
  new ProgressView(silent.output, 'auto').show({ id: 1, what: 'a', doneBytes: 1, totalBytes: 1 });
  t.same([...quiet.written, ...silent.written], []);
  t.equal(formatDuration(59.2), '1:00');
  t.equal(formatDuration(3723), '1:02:03');
});
