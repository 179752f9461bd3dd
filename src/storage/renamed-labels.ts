/** SQL: a row's `labels` where `$2` is called `$3` from now on. Of two that become one it has the one, once. */
export const RENAMED_LABELS =
  'CASE WHEN $3 = ANY(labels) THEN array_remove(labels, $2) ELSE array_replace(labels, $2, $3) END';
