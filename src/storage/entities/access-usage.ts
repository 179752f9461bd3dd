import { Column, Entity, Index, PrimaryColumn } from 'typeorm';

/** What the replicas have taken of a principal's budget in a minute. */
@Entity('access_usage')
@Index('access_usage_minute_idx', ['minute'])
export class AccessUsageRow {
  @PrimaryColumn('text') principal: string;
  /** `requests` or `tokens`. */
  @PrimaryColumn('text') resource: string;
  @PrimaryColumn('timestamptz') minute: Date;
  @Column('bigint') used: string;
  /** By the last who took. */
  @Column('bigint') granted: string;
}

/** A subscription that is open; whoever serves it says so again and again. */
@Entity('access_subscription')
@Index('access_subscription_principal_idx', ['principal', 'expiresAt'])
export class AccessSubscriptionRow {
  @PrimaryColumn('uuid') id: string;
  @Column('text') principal: string;
  @Column('timestamptz') expiresAt: Date;
}
