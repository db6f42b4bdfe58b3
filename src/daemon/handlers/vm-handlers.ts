/** The methods of the control protocol that are about VMs and snapshots. */
import { DiskError } from '../../common/errors.js';
import type {
  CallContext,
  ExportView,
  Handlers,
  HardwareChange,
  Params,
  Result,
  SnapshotView,
  TreeNode,
} from '../../control/protocol.js';
import { chooseWriting } from '../../formats/choose-writing.js';
import { diskSerial } from '../../guest/disk-serial.js';
import type { HardwareRequest } from '../../vm/hardware.js';
import { findSnapshot } from '../../vm/snapshot-tree.js';
import type { SnapshotRecord } from '../../vm/store/manifest.js';
import type { VmService } from '../../vm/vm-service.js';
import { Precedence } from '../urgency.js';
import { importFiles } from './import-handler.js';
import { requireAbsolute, workOf } from './requests.js';
import { resolveTarget } from './targets.js';
import {
  clonesBySnapshot,
  summarize,
  summarizeDamaged,
  type ViewSources,
  viewSnapshot,
  viewTree,
  viewVm,
} from './vm-views.js';

type StoreMethod = 'base.accept' | 'check' | 'compact' | 'gc';

/** Methods that this file answers for. */
export type VmMethod =
  | 'create'
  | 'import'
  | 'list'
  | 'info'
  | 'tree'
  | 'rename'
  | 'delete'
  | 'set'
  | 'disk.add'
  | 'disk.remove'
  | 'disk.resize'
  | 'path'
  | 'snapshot.take'
  | 'snapshot.list'
  | 'snapshot.delete'
  | 'snapshot.rename'
  | 'snapshot.restore'
  | 'clone'
  | 'export'
  | 'export.ova'
  | StoreMethod;

/**
 * The shapes of parameters are checked by the control server; what they mean is checked here and
 * below.
 */
export function vmHandlers(sources: ViewSources): Pick<Handlers, VmMethod> {
  const { service } = sources;
  return {
    ...snapshotHandlers(sources),
    ...storeHandlers(service),
    ...diskHandlers(sources),
    async create({ vm, disks, ...change }) {
      await service.create(vm, disks, hardwareOf(change));
      return viewVm(sources, vm);
    },
    async import(params, context) {
      const hardware = hardwareOf(params);
      const { vm, warnings } = await importFiles(service, params, hardware, context);
      return { ...viewVm(sources, vm), ...(warnings.length === 0 ? {} : { warnings }) };
    },
    async list() {
      const all = [
        ...service.list().map((entry) => summarize(entry, sources.guests)),
        ...service.damaged().map(summarizeDamaged),
      ];
      return all.sort((a, b) => (a.name < b.name ? -1 : 1));
    },
    async info({ vm }) {
      return viewVm(sources, vm);
    },
    async tree({ vm }) {
      return viewTrees(sources, vm);
    },
    async rename({ vm, name }) {
      await service.rename(vm, name);
      return viewVm(sources, name);
    },
    async delete({ vm }) {
      return { kept: await deleteWithFolder(sources, vm) };
    },
    async set({ vm, diskKinds = [], ...change }) {
      const kinds = diskKinds.map(({ disk, kind }) => ({
        ...{ disk: resolveTarget(sources, disk === undefined ? { vm } : { vm, disk }).disk, kind },
      }));
      const hardware = Object.keys(change).length > 0 ? hardwareOf(change) : undefined;
      // Two changes of the manifest: the second is not to be refused when the first is made.
      if (hardware !== undefined) await service.checkHardware(vm, hardware);
      if (kinds.length > 0) await service.changeKinds(vm, kinds);
      if (hardware !== undefined) await service.setHardware(vm, hardware);
      return viewVm(sources, vm);
    },
    async path(target) {
      return { path: resolveTarget(sources, target).path };
    },
    clone: (params, context) => clone(sources, params, context),
    export: (params, context) => exportDisk(sources, params, context),
    async 'export.ova'({ path, force: overwrite = false, ...target }, context) {
      requireAbsolute(path);
      const work = workOf(`exporting ${target.vm}`, context);
      const { storedSize } = await service.exportOva({ ...target, path, overwrite }, work);
      return { path, storedSize };
    },
  };
}

/** The care of the store. */
function storeHandlers(service: VmService): Pick<Handlers, StoreMethod> {
  return {
    async 'base.accept'({ vm }) {
      return { accepted: await service.acceptBases(vm) };
    },
    check: ({ vm, deep = false, repair = false }, context) =>
      service.check(
        { deep, repair, ...(vm === undefined ? {} : { vm }) },
        workOf(`checking ${vm ?? 'the store'}`, context),
      ),
    async compact({ vm }, context) {
      return { vm, ...(await service.compact(vm, workOf(`compacting ${vm}`, context))) };
    },
    async gc({ dryRun = false }) {
      return { dryRun, ...(await service.collectGarbage(dryRun)) };
    },
  };
}

/** Deletes a VM, and what its guests left. */
async function deleteWithFolder({ service, guests }: ViewSources, vm: string): Promise<number> {
  const number = service.list().find(({ name }) => name === vm)?.number;
  const kept = await service.delete(vm);
  if (number !== undefined) await guests.removeFolder(number);
  return kept;
}

function diskHandlers(sources: ViewSources): Pick<Handlers, Extract<VmMethod, `disk.${string}`>> {
  const { service } = sources;
  return {
    async 'disk.add'({ vm, disk }) {
      await service.addDisk(vm, disk);
      return viewVm(sources, vm);
    },
    async 'disk.remove'({ vm, disk }) {
      await service.removeDisk(vm, disk);
      return viewVm(sources, vm);
    },
    async 'disk.resize'({ vm, ...request }) {
      await service.resizeDisk(vm, request);
      return viewVm(sources, vm);
    },
  };
}

type SnapshotMethod = Extract<VmMethod, `snapshot.${string}`>;

function snapshotHandlers(sources: ViewSources): Pick<Handlers, SnapshotMethod> {
  const { service } = sources;
  const precedence = new Precedence();
  const view = (vm: string, record: SnapshotRecord): SnapshotView => {
    const tree = service.read(vm);
    // Renamed or deleted by somebody else since: shown as it was when this request ended.
    const now = tree.snapshots.find((each) => each.id === record.id) ?? record;
    return viewSnapshot(sources, vm, tree, now);
  };
  return {
    async 'snapshot.take'({ vm, snapshot, message, memory = false }, context) {
      const request = { name: snapshot, memory, ...(message === undefined ? {} : { message }) };
      const work = memory ? workOf(`saving the memory of ${vm}`, context) : {};
      const take = () => service.takeSnapshot(vm, request, work);
      return view(vm, await (memory ? take() : precedence.during(take)));
    },
    async 'snapshot.list'({ vm }) {
      const tree = service.read(vm);
      return tree.snapshots.map((each) => viewSnapshot(sources, vm, tree, each));
    },
    async 'snapshot.delete'({ vm, snapshot }) {
      await service.deleteSnapshot(vm, snapshot);
      return {};
    },
    async 'snapshot.rename'({ vm, snapshot, name }) {
      return view(vm, await service.renameSnapshot(vm, snapshot, name));
    },
    async 'snapshot.restore'({ vm, ...request }) {
      const restore = () => service.restoreSnapshot(vm, request);
      const { restored, saved } = await precedence.during(restore);
      return {
        restored: view(vm, restored),
        ...(saved === undefined ? {} : { saved: view(vm, saved) }),
      };
    },
  };
}

async function clone(
  sources: ViewSources,
  params: Params<'clone'>,
  context: CallContext,
): Promise<Result<'clone'>> {
  const { vm, snapshot, disk, name, mode, mac, serials = 'new', ...change } = params;
  if (disk !== undefined) {
    throw new DiskError('usage', `a clone has all disks of "${vm}", not "${disk}" alone`, {
      hint: 'leave the disk out',
    });
  }
  const request = {
    vm,
    name,
    mode,
    hardware: hardwareOf(change),
    ...(snapshot === undefined ? {} : { snapshot }),
    ...(mac === undefined ? {} : { mac }),
    ...(serials === 'new' ? {} : { serials: serialsOf(sources, vm, snapshot) }),
  };
  const { tookSnapshot, leftOut } = await sources.service.clone(
    request,
    workOf(`copying ${vm}`, context),
  );
  const source = sources.service.read(vm).snapshots.find((each) => each.name === snapshot);
  return {
    vm: viewVm(sources, name),
    ...(tookSnapshot === undefined ? {} : { tookSnapshot }),
    ...(source?.memoryState === undefined ? {} : { coldStart: true }),
    ...(leftOut.length === 0 ? {} : { leftOut }),
  };
}

/**
 * They are a disk's for life, so those of today are those of every snapshot; of a disk that was
 * removed since, that with which a restore would bring it back.
 */
function serialsOf(
  sources: ViewSources,
  vm: string,
  snapshot: string | undefined,
): Record<string, string> {
  const manifest = sources.service.read(vm);
  const today = new Map(viewVm(sources, vm).disks.map(({ name, serial }) => [name, serial]));
  if (snapshot === undefined) return Object.fromEntries(today);
  const { disks } = findSnapshot(vm, manifest, snapshot);
  return Object.fromEntries(
    disks.flatMap(({ name, serial, headNode }) => {
      const own = headNode === undefined ? undefined : diskSerial(manifest.id, headNode);
      const kept = today.get(name) ?? serial ?? own;
      return kept === undefined ? [] : [[name, kept]];
    }),
  );
}

async function exportDisk(
  sources: ViewSources,
  params: Params<'export'>,
  context: CallContext,
): Promise<ExportView> {
  const { path, format, force: overwrite = false, differencing = false } = params;
  requireAbsolute(path);
  const { subformat } = chooseWriting(params);
  const { vm, snapshot, disk } = resolveTarget(sources, params);
  const shape = { path, format, subformat, differencing, overwrite };
  const request = { vm, disk, ...shape, ...(snapshot === undefined ? {} : { snapshot }) };
  const outcome = await sources.service.export(request, workOf(`exporting ${vm}`, context));
  return { path, format, subformat, ...outcome };
}

async function viewTrees({ service }: ViewSources, vm: string | undefined): Promise<TreeNode[]> {
  const clones = clonesBySnapshot(service.list());
  if (vm !== undefined) return [viewTree(vm, service.read(vm), clones)];
  const trees: TreeNode[] = [];
  for await (const { name, manifest } of service.readAll()) {
    trees.push(viewTree(name, manifest, clones));
  }
  return trees;
}

function hardwareOf({ vcpus, memory, nics }: HardwareChange): HardwareRequest {
  return {
    ...(vcpus === undefined ? {} : { vcpus }),
    ...(memory === undefined ? {} : { memory }),
    ...(nics === undefined ? {} : { nics }),
  };
}
