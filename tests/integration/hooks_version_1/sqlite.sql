CREATE TABLE IF NOT EXISTS traceability_acting (
	account TEXT, 
	action TEXT, 
	rule TEXT
)
;;
CREATE TABLE IF NOT EXISTS traceability_installations (
	version INTEGER NOT NULL, 
	at DATETIME NOT NULL
)
;;
CREATE TABLE IF NOT EXISTS traceability_intentions (
	id INTEGER NOT NULL, 
	rule TEXT, 
	scope TEXT, 
	name TEXT, 
	account TEXT NOT NULL, 
	action TEXT NOT NULL, 
	at DATETIME NOT NULL, 
	PRIMARY KEY (id)
)
;;
CREATE INDEX IF NOT EXISTS ix_traceability_intentions_rule ON traceability_intentions (rule)
;;
CREATE INDEX IF NOT EXISTS traceability_intentions_did ON traceability_intentions (scope, name)
;;
CREATE TABLE IF NOT EXISTS traceability_outbox (
	id INTEGER NOT NULL, 
	event_id TEXT, 
	rse_id TEXT, 
	scope TEXT, 
	name TEXT, 
	old_state TEXT, 
	new_state TEXT, 
	bytes BIGINT, 
	adler32 TEXT, 
	md5 TEXT, 
	generation DATETIME, 
	account TEXT, 
	action TEXT, 
	rule TEXT, 
	at DATETIME, 
	claimed_by TEXT, 
	claimed_until DATETIME, 
	attempts INTEGER DEFAULT '0', 
	not_before DATETIME, 
	missing_since DATETIME, 
	last_error TEXT, 
	message TEXT, 
	PRIMARY KEY (id)
)
;;
CREATE INDEX IF NOT EXISTS traceability_outbox_product ON traceability_outbox (scope, name, id)
;;
CREATE TABLE IF NOT EXISTS traceability_outcomes (
	rse_id TEXT NOT NULL, 
	reason TEXT NOT NULL, 
	count BIGINT NOT NULL, 
	PRIMARY KEY (rse_id, reason)
)
;;
CREATE TABLE IF NOT EXISTS traceability_products (
	scope TEXT NOT NULL, 
	name TEXT NOT NULL, 
	generation DATETIME NOT NULL, 
	status TEXT NOT NULL, 
	proven INTEGER NOT NULL, 
	total INTEGER NOT NULL, 
	trace_id TEXT, 
	hash TEXT, 
	hash_algorithm TEXT, 
	signer TEXT, 
	verified_at DATETIME, 
	attributes TEXT, 
	position BIGINT, 
	PRIMARY KEY (scope, name, generation)
)
;;
CREATE INDEX IF NOT EXISTS traceability_products_status ON traceability_products (status)
;;
CREATE TABLE IF NOT EXISTS traceability_replicas (
	scope TEXT NOT NULL, 
	name TEXT NOT NULL, 
	generation DATETIME NOT NULL, 
	rse_id TEXT NOT NULL, 
	rse TEXT, 
	state TEXT NOT NULL, 
	trace_id TEXT, 
	proven_at DATETIME, 
	position BIGINT, 
	PRIMARY KEY (scope, name, generation, rse_id)
)
;;
CREATE TABLE IF NOT EXISTS traceability_rse_guards (
	rse_id TEXT NOT NULL, 
	lost_in_a_row INTEGER NOT NULL, 
	stopped_at DATETIME, 
	PRIMARY KEY (rse_id)
)
;;
CREATE TABLE IF NOT EXISTS traceability_rse_names (
	name TEXT NOT NULL, 
	rse_id TEXT NOT NULL, 
	PRIMARY KEY (name, rse_id)
)
;;
CREATE TABLE IF NOT EXISTS traceability_unlocked (
	id INTEGER NOT NULL, 
	rule TEXT, 
	rse_id TEXT, 
	scope TEXT, 
	name TEXT, 
	rule_scope TEXT, 
	rule_name TEXT, 
	rule_created_at DATETIME, 
	rule_expires_at DATETIME, 
	account TEXT, 
	action TEXT, 
	at DATETIME, 
	PRIMARY KEY (id)
)
;;
CREATE INDEX IF NOT EXISTS traceability_unlocked_replica ON traceability_unlocked (scope, name, rse_id)
;;
DROP TRIGGER IF EXISTS traceability_replicas_insert
;;
CREATE TRIGGER traceability_replicas_insert AFTER INSERT ON replicas 
BEGIN -- rucio-trace hooks version 1
    INSERT INTO traceability_outbox (event_id, rse_id, scope, name, old_state, new_state, bytes, adler32, md5,
                                 generation, account, action, rule, at)
    SELECT printf('%08x-%04x-4%03x-%x%03x-%012x', random() & 0xffffffff, random() & 0xffff, random() & 0xfff, 8 + (random() & 3), random() & 0xfff, random() & 0xffffffffffff), NEW.rse_id, NEW.scope, NEW.name, NULL, NEW.state, NEW.bytes, NEW.adler32, NEW.md5,
           (SELECT created_at FROM dids WHERE scope = NEW.scope AND name = NEW.name),
           acting.account, acting.action, acting.rule, strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'
    FROM (SELECT 1) LEFT JOIN (SELECT account, action, rule FROM traceability_acting LIMIT 1) AS acting;
END
;;
DROP TRIGGER IF EXISTS traceability_replicas_update
;;
CREATE TRIGGER traceability_replicas_update AFTER UPDATE OF state ON replicas WHEN OLD.state IS NOT NEW.state
BEGIN -- rucio-trace hooks version 1
    INSERT INTO traceability_outbox (event_id, rse_id, scope, name, old_state, new_state, bytes, adler32, md5,
                                 generation, account, action, rule, at)
    SELECT printf('%08x-%04x-4%03x-%x%03x-%012x', random() & 0xffffffff, random() & 0xffff, random() & 0xfff, 8 + (random() & 3), random() & 0xfff, random() & 0xffffffffffff), NEW.rse_id, NEW.scope, NEW.name, OLD.state, NEW.state, NEW.bytes, NEW.adler32, NEW.md5,
           (SELECT created_at FROM dids WHERE scope = NEW.scope AND name = NEW.name),
           acting.account, acting.action, acting.rule, strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'
    FROM (SELECT 1) LEFT JOIN (SELECT account, action, rule FROM traceability_acting LIMIT 1) AS acting;
END
;;
DROP TRIGGER IF EXISTS traceability_replicas_delete
;;
CREATE TRIGGER traceability_replicas_delete AFTER DELETE ON replicas 
BEGIN -- rucio-trace hooks version 1
    INSERT INTO traceability_outbox (event_id, rse_id, scope, name, old_state, new_state, bytes, adler32, md5,
                                 generation, account, action, rule, at)
    SELECT printf('%08x-%04x-4%03x-%x%03x-%012x', random() & 0xffffffff, random() & 0xffff, random() & 0xfff, 8 + (random() & 3), random() & 0xfff, random() & 0xffffffffffff), OLD.rse_id, OLD.scope, OLD.name, OLD.state, NULL, OLD.bytes, OLD.adler32, OLD.md5,
           (SELECT created_at FROM dids WHERE scope = OLD.scope AND name = OLD.name),
           acting.account, acting.action, acting.rule, strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'
    FROM (SELECT 1) LEFT JOIN (SELECT account, action, rule FROM traceability_acting LIMIT 1) AS acting;
END
;;
DROP TRIGGER IF EXISTS traceability_locks
;;
CREATE TRIGGER traceability_locks AFTER DELETE ON locks
BEGIN -- rucio-trace hooks version 1
    INSERT INTO traceability_unlocked (rule, rse_id, scope, name, rule_scope, rule_name, rule_created_at, rule_expires_at,
                                   account, action, at)
    SELECT OLD.rule_id, OLD.rse_id, OLD.scope, OLD.name, rules.scope, rules.name, rules.created_at, rules.expires_at,
           (SELECT account FROM traceability_acting), (SELECT action FROM traceability_acting), strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'
    FROM (SELECT 1) LEFT JOIN rules ON rules.id = OLD.rule_id;
END
