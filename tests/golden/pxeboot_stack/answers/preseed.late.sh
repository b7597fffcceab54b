#!/bin/sh
# Runs inside the new system of web1: its account, its SSH host key, where its packages come from.
set -eu
umask 022

user=lab
home=/home/$user
# An answer file of your own may have made the account already.
id "$user" > /dev/null 2>&1 || useradd --create-home --shell /bin/bash "$user"
usermod --lock "$user"

mkdir -p -m 700 "$home/.ssh"
cat > "$home/.ssh/authorized_keys" <<'END_OF_KEYS'
ssh-ed25519 AAAAlabkey lab
END_OF_KEYS
chmod 600 "$home/.ssh/authorized_keys"
chown -R "$user:" "$home/.ssh"

printf '%s ALL=(ALL) NOPASSWD:ALL\n' "$user" > /etc/sudoers.d/90-pvmlab
chmod 440 /etc/sudoers.d/90-pvmlab

# Keys only, and the host key that the lab knows already.
mkdir -p /etc/ssh/sshd_config.d
printf 'PasswordAuthentication no\nKbdInteractiveAuthentication no\n' > /etc/ssh/sshd_config.d/10-pvmlab.conf
rm -f /etc/ssh/ssh_host_*
umask 077
cat > /etc/ssh/ssh_host_ed25519_key <<'END_OF_KEY'
-----BEGIN OPENSSH PRIVATE KEY-----
THE-SECRET
-----END OPENSSH PRIVATE KEY-----
END_OF_KEY
umask 022
printf '%s\n' 'ssh-ed25519 AAAAhostkey web1' > /etc/ssh/ssh_host_ed25519_key.pub

cat > /etc/apt/sources.list <<'END_OF_SOURCES'
deb http://mirror.example/debian trixie main
deb http://mirror.example/debian trixie-updates main
deb http://security.example/debian-security trixie-security main
END_OF_SOURCES
