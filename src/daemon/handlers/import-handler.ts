/** `import` of the control protocol: images as the disks of a VM, or a whole machine. */
import { DiskError } from '../../common/errors.js';
import { shellWord } from '../../common/shell-word.js';
import type { CallContext, Params } from '../../control/protocol.js';
import { verifyDigests } from '../../machines/digests.js';
import { isMachineFile, readMachine } from '../../machines/read-machine.js';
import type { ImportedMachine } from '../../vm/exchange/machine-import.js';
import type { HardwareRequest } from '../../vm/hardware.js';
import type { VmService } from '../../vm/vm-service.js';
import { requireAbsolute, workOf } from './requests.js';

/** @returns the VM that was made, and what was not taken over. */
export async function importFiles(
  service: VmService,
  params: Params<'import'>,
  hardware: HardwareRequest,
  context: CallContext,
): Promise<ImportedMachine> {
  const { files, vm, format = 'auto', copy = false, allowFolders = [] } = params;
  const { parent, imageSnapshot: snapshot } = params;
  for (const path of [...files, ...allowFolders, ...(parent === undefined ? [] : [parent])]) {
    requireAbsolute(path);
  }
  // Who names a format says that the file is an image, whatever it is called.
  const machine = format === 'auto' ? files.find(isMachineFile) : undefined;
  if (machine !== undefined) {
    checkMachineRequest(machine, params);
    return importMachine(service, machine, params, hardware, context);
  }
  if (vm === undefined) {
    throw new DiskError('usage', 'the new VM has no name', {
      hint: 'layerdisk import FILE ... VM; only a whole machine (.vbox, .vmx, .ova) has a name',
    });
  }
  if (parent !== undefined && files.length > 1) {
    throw new DiskError('usage', `one parent, ${parent}, cannot belong to ${files.length} images`, {
      hint: 'import the image that needs it alone, or put the parents beside their images',
    });
  }
  const options = {
    format,
    ...(allowFolders.length === 0 ? {} : { allowFolders }),
    ...(parent === undefined ? {} : { parent }),
    ...(snapshot === undefined ? {} : { snapshot }),
  };
  const images = files.map((path) => ({ path, options }));
  const work = workOf(`importing ${vm}`, context);
  return { vm, warnings: await service.importImages(vm, images, { copy, hardware }, work) };
}

/** A machine file says all by itself. */
function checkMachineRequest(
  machine: string,
  { files, parent, imageSnapshot }: Params<'import'>,
): void {
  if (files.length > 1) {
    throw new DiskError('usage', `${machine} is a whole machine: it is imported alone`, {
      hint: `layerdisk import ${shellWord(machine)} VM, or say --format if it is an image`,
    });
  }
  if (parent !== undefined) {
    throw new DiskError('usage', `${machine} is a whole machine: it takes no parent`, {
      hint: 'put the parents beside the images of the machine',
    });
  }
  if (imageSnapshot !== undefined) {
    throw new DiskError('usage', `${machine} is a whole machine: no state of an image is chosen`, {
      hint: 'leave --image-snapshot out, or import the image itself',
    });
  }
}

async function importMachine(
  service: VmService,
  path: string,
  { vm, copy = false, allowFolders = [] }: Params<'import'>,
  hardware: HardwareRequest,
  context: CallContext,
): Promise<ImportedMachine> {
  const machine = readMachine(path, { allowFolders });
  await verifyDigests(machine.digests, workOf(`checking ${path}`, context));
  const request = { machine, copy, hardware, allowFolders, ...(vm === undefined ? {} : { vm }) };
  return service.importMachine(request, workOf(`importing ${vm ?? path}`, context));
}
