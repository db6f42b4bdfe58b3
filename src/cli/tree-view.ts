/** Draws the snapshot tree: box characters where the terminal has them, ASCII elsewhere. */
import { formatSize } from '../common/units.js';
import type { TreeNode } from '../control/protocol.js';
import { type Output, plain } from './output.js';
import { shortTime } from './views.js';

interface Strokes {
  readonly branch: string;
  readonly last: string;
  readonly down: string;
  readonly none: string;
}

const BOX: Strokes = { branch: '├── ', last: '└── ', down: '│   ', none: '    ' };
const ASCII: Strokes = { branch: '|-- ', last: '`-- ', down: '|   ', none: '    ' };

/** Lines of the trees; `*` marks each VM's current state. */
export function treeLines(output: Output, roots: readonly TreeNode[]): string[] {
  const strokes = output.unicode ? BOX : ASCII;
  const lines: string[] = [];
  // A list of what is still to draw, not a recursion: a chain may be 1,000 snapshots deep.
  const waiting = roots.map((node) => ({ node, before: '', stroke: '', below: '' })).reverse();
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const { node, before, stroke, below } = next;
    lines.push(`${before}${stroke}${describe(output, node)}`);
    const inner = before + below;
    const children = node.children.map((child, index) => {
      const last = index === node.children.length - 1;
      return {
        node: child,
        before: inner,
        stroke: last ? strokes.last : strokes.branch,
        below: last ? strokes.none : strokes.down,
      };
    });
    waiting.push(...children.reverse());
  }
  return lines;
}

function describe(output: Output, node: TreeNode): string {
  if (node.kind === 'current') return output.style('green', '* (current state)');
  const name = plain(node.name);
  const parts = [node.kind === 'vm' ? output.style('bold', name) : name];
  if (node.created !== undefined) parts.push(output.style('dim', shortTime(node.created)));
  if (node.memoryState !== undefined) {
    parts.push(output.style('dim', `[memory: ${formatSize(node.memoryState)}]`));
  }
  if (node.message !== undefined) parts.push(plain(node.message));
  if (node.clones !== undefined && node.clones.length > 0) {
    parts.push(output.style('dim', `[clones: ${node.clones.map(plain).join(', ')}]`));
  }
  return parts.join('  ');
}

/** Names of VMs and, under them, of snapshots as `VM@SNAPSHOT`. */
export function treeNames(roots: readonly TreeNode[]): string[] {
  const names: string[] = [];
  for (const root of roots) {
    names.push(root.name);
    const waiting = [...root.children].reverse();
    for (let node = waiting.pop(); node !== undefined; node = waiting.pop()) {
      if (node.kind === 'snapshot') names.push(`${root.name}@${node.name}`);
      waiting.push(...[...node.children].reverse());
    }
  }
  return names;
}
