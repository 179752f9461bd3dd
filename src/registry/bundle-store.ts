/**
 * Where bundles are kept for all replicas: a folder that they share, or S3. A bundle lies under its task and the digest of
 * its manifest, which holds the digests of its files: what has a name never changes. The manifest comes last, so that
 * a bundle without one is not there, whatever a writer that was killed has left.
 *
 *   <store>/<task>/<digest>/<files of the manifest>, manifest.json
 */
import type { Readable } from 'node:stream';
import type { Config } from '../config/config.js';
import type { BundleFile } from './manifest.js';

export const MANIFEST = 'manifest.json';

export interface StoredBundle {
  task: string;
  /** SHA-256 of its manifest. */
  digest: string;
}

export interface BundleStore {
  /** For messages. */
  readonly name: string;
  /** Throws where the store cannot be used. */
  check(): Promise<void>;
  has(bundle: StoredBundle): Promise<boolean>;
  /**
   * Puts the files of a verified bundle there, unless it is there already; mends what a writer that was killed has left.
   * `tell` is told how many bytes were written.
   */
  put(bundle: StoredBundle, folder: string, files: BundleFile[], tell: (bytes: number) => void): Promise<void>;
  /** Throws where the file is not there. */
  read(bundle: StoredBundle, file: string): Promise<Readable>;
}

export const BUNDLE_STORE = Symbol('BUNDLE_STORE');

/** The one that is configured; null where bundles are in data folders alone. */
export async function openBundleStore(config: Config): Promise<BundleStore | null> {
  const { bundleStore } = config;
  if (bundleStore === '') return null;
  if (!bundleStore.startsWith('s3://')) {
    const { FolderStore } = await import('./folder-store.js');
    return new FolderStore(bundleStore);
  }
  // The SDK is loaded where it is wanted alone.
  const { S3Store } = await import('./s3-store.js');
  return new S3Store(config);
}
