"""Everything of a database that a revision makes, as lines that can be compared."""

from tests.factories.statements import Sql

_OURS = "('nexus_memory', 'memory_system', 'consciousness')"

QUERIES: dict[str, str] = {
    "schema": f"SELECT nspname, nspowner::regrole::text, nspacl::text FROM pg_namespace WHERE nspname IN {_OURS}",
    "relation": f"""
        SELECT n.nspname, c.relname, c.relkind::text, c.relowner::regrole::text, c.relacl::text, c.relrowsecurity, c.relforcerowsecurity,
               c.reloptions::text, c.relpersistence::text
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname IN {_OURS}""",
    "column": f"""
        SELECT n.nspname, c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity::text,
               a.attgenerated::text, a.attacl::text, a.attstorage::text, pg_get_expr(d.adbin, d.adrelid)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE n.nspname IN {_OURS} AND a.attnum > 0 AND NOT a.attisdropped""",
    "constraint": f"""
        SELECT n.nspname, k.conrelid::regclass::text, k.conname, k.contype::text, k.convalidated, pg_get_constraintdef(k.oid)
        FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace WHERE n.nspname IN {_OURS}""",
    "index": f"SELECT schemaname, tablename, indexname, indexdef FROM pg_indexes WHERE schemaname IN {_OURS}",
    "function": f"""
        SELECT n.nspname, p.oid::regprocedure::text, p.proowner::regrole::text, p.proacl::text, p.prosecdef, p.proconfig::text,
               p.provolatile::text, pg_get_functiondef(p.oid)
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname IN {_OURS}""",
    "trigger": f"""
        SELECT n.nspname, c.relname, t.tgname, t.tgenabled::text, pg_get_triggerdef(t.oid)
        FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname IN {_OURS} AND NOT t.tgisinternal""",
    "policy": f"""
        SELECT schemaname, tablename, policyname, permissive, roles::text, cmd, qual, with_check FROM pg_policies
        WHERE schemaname IN {_OURS}""",
    "default privilege": """
        SELECT defaclrole::regrole::text, coalesce(n.nspname, ''), defaclobjtype::text, defaclacl::text
        FROM pg_default_acl d LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace""",
    "sequence": f"SELECT schemaname, sequencename, data_type::text, increment_by, cycle FROM pg_sequences WHERE schemaname IN {_OURS}",
    "type": f"""
        SELECT n.nspname, t.typname, t.typtype::text FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
        WHERE n.nspname IN {_OURS}""",
    "public schema": "SELECT nspowner::regrole::text, nspacl::text FROM pg_namespace WHERE nspname = 'public'",
    "database": "SELECT datdba::regrole::text, datacl::text, datlocale FROM pg_database WHERE datname = current_database()",
    "extension": "SELECT extname, extversion FROM pg_extension",
    "role": """
        SELECT rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls
        FROM pg_roles WHERE rolname LIKE 'nexus%'""",
    "membership": """
        SELECT roleid::regrole::text, member::regrole::text, admin_option, inherit_option, set_option FROM pg_auth_members
        WHERE roleid::regrole::text LIKE 'nexus%'""",
    "seed row": "SELECT model_id, name, version, dimensions, fingerprint, is_active FROM memory_system.embedding_models",
}


def fingerprint(sql: Sql) -> set[str]:
    """Return one line an object: what it is, what it is called, and all that is known of it."""
    lines = set()
    for kind, query in QUERIES.items():
        if kind == "seed row" and sql.one("SELECT to_regclass('memory_system.embedding_models') IS NULL"):
            continue
        lines |= {f"{kind} {row!r}" for row in sql(query)}
    return lines
