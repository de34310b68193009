-- The agents whose whole corpus has vectors of a model that is not active yet: their searches use it already.
CREATE TABLE memory_system.agent_models (
    agent_id text NOT NULL,
    model_id smallint NOT NULL,
    completed_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT pk_agent_models PRIMARY KEY (agent_id, model_id),
    CONSTRAINT fk_agent_models_model FOREIGN KEY (model_id) REFERENCES memory_system.embedding_models (model_id) ON DELETE CASCADE
);
