import { Column, CreateDateColumn, Entity, ForeignKey, Index, PrimaryColumn } from 'typeorm';

export type RoleValue = 'CLIENT' | 'LABELER' | 'ENGINEER' | 'ADMIN';

/** Who may do what. A name is never given twice: records name the key that acted. */
@Entity('access_key')
export class AccessKeyRow {
  @PrimaryColumn('text') name: string;
  @Column('text') role: RoleValue;
  /** Null: all. */
  @Column('text', { array: true, nullable: true }) tasks: string[] | null;
  /** Null: the service's own limit; 0: none. */
  @Column('integer', { nullable: true }) requestsPerMinute: number | null;
  @Column('integer', { nullable: true }) tokensPerMinute: number | null;
  @Column('integer', { nullable: true }) subscriptions: number | null;
  @Column('text') createdBy: string;
  @CreateDateColumn({ type: 'timestamptz' }) createdAt: Date;
  @Column('timestamptz', { nullable: true }) revokedAt: Date | null;
  @Column('text', { nullable: true }) revokedBy: string | null;
}

/** What proves a key: several while it is rotated. */
@Entity('access_secret')
@Index('access_secret_key_idx', ['key', 'createdAt'])
export class AccessSecretRow {
  /** The part of the key that is no secret. */
  @PrimaryColumn('text') id: string;
  @ForeignKey(() => AccessKeyRow)
  @Column('text')
  key: string;
  /** SHA-256 of the secret part. */
  @Column('bytea') hash: Buffer;
  @Column('text') createdBy: string;
  @CreateDateColumn({ type: 'timestamptz' }) createdAt: Date;
  @Column('timestamptz', { nullable: true }) expiresAt: Date | null;
  @Column('timestamptz', { nullable: true }) lastUsedAt: Date | null;
}
