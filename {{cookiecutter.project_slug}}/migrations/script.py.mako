"""${message.rstrip(".")}.

% if down_revision:
Revision ${up_revision}, after ${down_revision | comma,n}.
% else:
Revision ${up_revision}, the first.
% endif
"""

import sqlalchemy as sa
% if imports:
${imports}
% endif
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


def upgrade() -> None:
    """Apply the change."""
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    """Take the change back."""
    ${downgrades if downgrades else "pass"}
