"""Whether a PostgreSQL database can be used: its encoding, its schema, and the rights of our user.

Each refusal says what is missing, and its `cause` is the statement that an administrator runs.
"""

from service.core.problems import Unavailable
from service.store.driver import ReadSession
from service.store.move import KEYS, OWN

_DATABASE = """
select current_setting('server_encoding'), current_database()::text, current_user::text,
quote_ident(current_user), current_schema()::text, quote_ident(current_schema()),
coalesce(has_schema_privilege(current_schema(), 'CREATE'), false), current_setting('search_path')
"""
_TABLES = """
select relname::text, pg_get_userbyid(relowner)::text, pg_has_role(relowner, 'USAGE'),
has_table_privilege(oid, 'SELECT') and has_table_privilege(oid, 'INSERT')
and has_table_privilege(oid, 'UPDATE') and has_table_privilege(oid, 'DELETE')
from pg_class where relnamespace = (select oid from pg_namespace where nspname = current_schema())
and relkind in ('r', 'p') and relname = any(?) order by relname
"""
_RIGHTS = "SELECT, INSERT, UPDATE, DELETE"


async def check_usable(session: ReadSession) -> None:
    """Raise Unavailable if the service can't run on this database, even if all migrations are applied."""
    ((encoding, database, user, quoted, schema, in_schema, _, path),) = await session.fetch(_DATABASE)
    if encoding != "UTF8":
        detail = f"The database {database} has the encoding {encoding}, but texts need UTF8."
        cause = "create another one: CREATE DATABASE taskhook ENCODING 'UTF8' TEMPLATE template0"
        raise Unavailable(detail, cause=cause)
    if schema is None:
        detail = f"The user {user} may use no schema of its search_path ({path}) in the database {database}."
        raise Unavailable(detail, cause=f"GRANT USAGE, CREATE ON SCHEMA public TO {quoted}")
    for table, _, _, may_use in await session.fetch(_TABLES, ([*KEYS, *OWN],)):
        if not may_use:
            detail = f"The user {user} may not read and write the table {table} of the schema {schema}."
            raise Unavailable(detail, cause=f"GRANT {_RIGHTS} ON ALL TABLES IN SCHEMA {in_schema} TO {quoted}")


async def check_may_migrate(session: ReadSession) -> None:
    """Raise Unavailable if our user may not migrate."""
    ((_, database, user, quoted, schema, in_schema, may_create, _),) = await session.fetch(_DATABASE)
    if not may_create:
        detail = f"The user {user} may not create tables in the schema {schema} of the database {database}."
        raise Unavailable(detail, cause=f"GRANT CREATE ON SCHEMA {in_schema} TO {quoted}")
    for table, owner, is_owner, _ in await session.fetch(_TABLES, ([*KEYS, *OWN],)):
        if not is_owner:
            detail = f"The user {user} may not change the table {table}, which belongs to {owner}."
            raise Unavailable(detail, cause=f"run `taskhook migrate` as {owner}")
