/** Whether ONNX Runtime can compute where `FEWLOOP_DEVICE` says: tried when the process starts, with the base model. */
import { join } from 'node:path';
import type { Config } from '../config/config.js';
import { devicesOf, isGpu } from '../common/devices.js';
import { HostGroup } from '../runtime/host-group.js';
import { fileDigest } from './bundle.js';
import { BASE_GRAPH } from './host-layout.js';

/**
 * Throws where a device cannot be used, with what ONNX Runtime says: a library that is missing or of another version,
 * a driver that is too old, no memory. There is no falling back: who asked for a GPU has sized the service by it.
 */
export async function refuseUnusableDevices({
  device,
  baseModel,
}: Pick<Config, 'device' | 'baseModel'>): Promise<void> {
  if (!isGpu(device)) return;
  const path = join(baseModel, BASE_GRAPH);
  const graph = { path, sha256: await fileDigest(path) };
  for (const one of devicesOf(device)) {
    try {
      // A host that has started has computed once.
      const group = await HostGroup.start([graph], { threads: 1, device: one }, 1);
      await group.close();
    } catch (cause) {
      const why = (cause as Error).message;
      throw new Error(`FEWLOOP_DEVICE=${device}: ${one} cannot be used: ${why}`, { cause });
    }
  }
}
