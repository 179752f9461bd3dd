/** Which bundle store there is. The AWS SDK is loaded where S3 is configured alone. */
import type { Config } from '../config/config.js';
import type { BundleStore } from './bundle-store.js';

/** The one that is configured; null where bundles are in data folders alone. */
export async function openBundleStore(config: Config): Promise<BundleStore | null> {
  const { bundleStore } = config;
  if (bundleStore === '') return null;
  if (!bundleStore.startsWith('s3://')) {
    const { FolderStore } = await import('./folder-store.js');
    return new FolderStore(bundleStore);
  }
  const { S3Store } = await import('./s3-store.js');
  return new S3Store(config);
}
