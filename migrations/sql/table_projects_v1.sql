CREATE TABLE nexus_memory.projects (
    project_id uuid NOT NULL DEFAULT gen_random_uuid(),
    agent_id text NOT NULL,
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_projects PRIMARY KEY (project_id),
    CONSTRAINT uq_projects_agent_id_name UNIQUE (agent_id, name),
    CONSTRAINT uq_projects_agent_id_project_id UNIQUE (agent_id, project_id),
    CONSTRAINT ck_projects_agent_id CHECK (agent_id ~ '^[A-Za-z0-9._@-]{1,128}$'),
    CONSTRAINT ck_projects_name CHECK (name ~ '\S' AND char_length(name) <= 256)
);
