export interface Package {
  name: string;
  version: string;
  licence: string;
}
export function npmPackages(lock: {
  packages: Record<string, { version: string; license?: string; dev?: boolean }>;
}): Package[];
export function pythonPackages(list: { Name: string; Version: string; License: string }[]): Package[];
export function refused(packages: Package[]): Package[];
