/** The text of an OVF 1 descriptor for one machine whose disks are streamOptimized VMDKs. */
import { MiB } from '../common/units.js';
import type { NicMode } from './machine.js';
import { memoryUnits } from './machine-output.js';
import { xmlText } from './xml-text.js';

export interface OvfDisk {
  /** The file's name. */
  readonly name: string;
  /** Bytes of the file. */
  readonly size: number;
  /** Bytes of the virtual disk. */
  readonly capacity: number;
}

interface OvfNic {
  readonly mode: NicMode;
  readonly network?: string;
}

export interface OvfContent {
  readonly name: string;
  readonly vcpus: number;
  /** Bytes; the file says MiB, rounded up. */
  readonly memory: number;
  readonly nics: readonly OvfNic[];
  readonly disks: readonly OvfDisk[];
}

/** Names of networks by which VirtualBox (but for `None`) and we know the mode again. */
const NETWORKS: Readonly<Record<NicMode, string>> = {
  nat: 'NAT',
  bridged: 'Bridged',
  'host-only': 'HostOnly',
  internal: 'Internal',
  // As vCloud Director has it: an adapter without a connection would be on any network.
  none: 'None',
};
const CIM = 'http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2';
const STREAM_OPTIMIZED =
  'http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized';
/** Instances: the CPU, the memory, the controller; then disks and NICs. */
const CONTROLLER = 3;

export function ovfDescriptor({ name, vcpus, memory, nics, disks }: OvfContent): string {
  const plugged = nics.map((nic) => ({ ...nic, connection: connectionOf(nic, nics) }));
  const files = disks.map(
    (disk, index) =>
      `<File ovf:id="file${index}" ovf:href="${xmlText(disk.name)}" ovf:size="${disk.size}"/>`,
  );
  const sections = disks.map(
    ({ capacity }, index) =>
      `<Disk ovf:diskId="disk${index}" ovf:fileRef="file${index}" ovf:capacity="${capacity}"` +
      ` ovf:format="${STREAM_OPTIMIZED}"/>`,
  );
  const described = new Map(plugged.map((nic) => [nic.connection, networkDescription(nic)]));
  const networks = [...described].map(
    ([name, text]) => `<Network ovf:name="${name}"><Description>${text}</Description></Network>`,
  );
  return `<?xml version="1.0" encoding="UTF-8"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:rasd="${CIM}/CIM_ResourceAllocationSettingData"
  xmlns:vssd="${CIM}/CIM_VirtualSystemSettingData">
  <References>${files.join('')}</References>
  <DiskSection><Info>Virtual disks</Info>${sections.join('')}</DiskSection>
  <NetworkSection><Info>Networks</Info>${networks.join('')}</NetworkSection>
  <VirtualSystem ovf:id="${xmlText(name)}">
    <Info>A virtual machine</Info>
    <Name>${xmlText(name)}</Name>
    <VirtualHardwareSection>
      <Info>Virtual hardware</Info>
      <System>
        <vssd:ElementName>Virtual Hardware Family</vssd:ElementName>
        <vssd:InstanceID>0</vssd:InstanceID>
        <vssd:VirtualSystemIdentifier>${xmlText(name)}</vssd:VirtualSystemIdentifier>
        <vssd:VirtualSystemType>vmx-13</vssd:VirtualSystemType>
      </System>
      ${items({ vcpus, memory, plugged, diskCount: disks.length }).join('\n      ')}
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
`;
}

/** The mode alone, by which others know it, where that tells the networks of the machine apart. */
function connectionOf({ mode, network }: OvfNic, nics: readonly OvfNic[]): string {
  const isOnlyOne = nics.every((nic) => nic.mode !== mode || nic.network === network);
  const word = NETWORKS[mode];
  return isOnlyOne || network === undefined ? word : `${word} ${network}`;
}

/** The name of a network goes along in words; `ovf.ts` reads it there. */
function networkDescription({ mode, network }: OvfNic): string {
  const word = NETWORKS[mode];
  return network === undefined ? word : `${word} network ${network}`;
}

interface Hardware {
  readonly vcpus: number;
  readonly memory: number;
  readonly plugged: readonly { readonly mode: NicMode; readonly connection: string }[];
  readonly diskCount: number;
}

function items({ vcpus, memory, plugged, diskCount }: Hardware): string[] {
  const diskItems = Array.from({ length: diskCount }, (_, index) =>
    item({
      AddressOnParent: index,
      ElementName: `Hard Disk ${index + 1}`,
      HostResource: `ovf:/disk/disk${index}`,
      InstanceID: CONTROLLER + 1 + index,
      Parent: CONTROLLER,
      ResourceType: 17,
    }),
  );
  const nicItems = plugged.map(({ mode, connection }, index) =>
    item({
      AutomaticAllocation: mode === 'none' ? 'false' : 'true',
      Connection: connection,
      ElementName: `Network Adapter ${index + 1}`,
      InstanceID: CONTROLLER + 1 + diskCount + index,
      ResourceSubType: 'E1000',
      ResourceType: 10,
    }),
  );
  return [
    item({
      AllocationUnits: 'hertz * 10^6',
      ElementName: `${vcpus} virtual CPU(s)`,
      InstanceID: 1,
      ResourceType: 3,
      VirtualQuantity: vcpus,
    }),
    item({
      AllocationUnits: 'byte * 2^20',
      ElementName: 'Memory',
      InstanceID: 2,
      ResourceType: 4,
      VirtualQuantity: memoryUnits(memory, MiB),
    }),
    item({
      Address: 0,
      ElementName: 'SATA Controller',
      InstanceID: CONTROLLER,
      ResourceSubType: 'AHCI',
      ResourceType: 20,
    }),
    ...diskItems,
    ...nicItems,
  ];
}

/** The fields of an item, which the schema wants in the order of the alphabet. */
function item(fields: Readonly<Record<string, string | number>>): string {
  const inner = Object.entries(fields).map(
    ([name, value]) => `<rasd:${name}>${value}</rasd:${name}>`,
  );
  return `<Item>${inner.join('')}</Item>`;
}
