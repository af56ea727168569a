package VMware::VmPerl::Wire;

# One connection: the way to the gateway, login, hand-over to the server, then one request and one
# reply at a time.
#
#   no host ─▶ unix socket ─▶ else loopback TCP ─┐
#   host ──────────────────────▶ TCP ────────────┴▶ banner ─▶ TLS, if the banner says so
#       ─▶ LOCAL, or USER and PASS ─▶ GLOBAL server ─▶ <exec> documents
#
# The socket never blocks: every wait ends at the deadline of the call. Whatever goes wrong ends the
# call through VMware::VmPerl::Constants::fail; after that the connection must not be used again.

use strict;
use warnings;

use Errno ();
use Fcntl qw(F_GETFL F_SETFL O_NONBLOCK);
use Socket qw(AF_INET AF_INET6 AF_UNIX IPPROTO_TCP MSG_DONTWAIT MSG_PEEK SOCK_STREAM SOL_SOCKET SO_ERROR
    TCP_NODELAY getaddrinfo pack_sockaddr_un AI_NUMERICSERV);
use Time::HiRes ();

use VMware::VmPerl::Constants ();
use VMware::VmPerl::KnownHosts ();
use VMware::VmPerl::Reply ();

our $VERSION = '1.0.0';

# Longest line of the gateway; its own replies stay below 1024 bytes.
my $MAX_LINE = 4096;

# Longest reply; a list of 10 000 machines with all details has about 5 MiB.
my $MAX_REPLY = 256 * 1024 * 1024;

sub _fail { my (@what) = @_; return VMware::VmPerl::Constants::fail(@what) }

# The environment, unless this process runs with rights that its caller does not have.
sub environment {
    return {} if $< != $> || ${^TAINT};
    return \%ENV;
}

# Where the gateway of this machine is: (path of the unix socket or '', TCP port).
sub here {
    my $environment = environment();
    my $root = $environment->{VMCONTROL_ROOT};
    $root = '' if !defined $root;
    my ($socket, $port) = ("$root/run/vmware/authd.sock", 902);
    if (open my $file, '<', "$root/etc/vmware/config") {
        # The last line of a key wins; keys without regard to case.
        while (my $line = <$file>) {
            next if $line !~ /^\s*([^\s=#]+)\s*=\s*(?:"([^"]*)"|(\S*))/;
            my ($key, $value) = (lc $1, defined $2 ? $2 : $3);
            $value =~ s/\|(22|7C)/chr hex $1/gie;
            $socket = $value if $key eq 'authd.local.socket';
            $port = $value + 0 if $key eq 'authd.client.port' && $value =~ /^[0-9]{1,5}$/ && $value > 0;
        }
        close $file;
    }
    $socket = $environment->{VMCONTROL_SOCKET} if defined $environment->{VMCONTROL_SOCKET};
    return ($socket, $port);
}

# Connects, logs in and is handed to the server. `%who` has hostname, port, username, password, each
# perhaps undef; `$milliseconds` is the time for all of it.
sub open_session {
    my ($class, $milliseconds, %who) = @_;
    my $self = bless { buffer => '', owner => _owner() }, $class;
    $self->begin($milliseconds);
    my ($socket, $default) = here();
    my $port = $who{port} || $default;
    my $host = $who{hostname};
    my @tried;
    if (!defined $host || !length $host) {
        $host = '127.0.0.1';
        if (length $socket) {
            my $failed = $self->_unix($socket);
            push @tried, "$socket: $failed" if defined $failed;
        }
    }
    if (!$self->{handle}) {
        my $failed = $self->_tcp($host, $port);
        push @tried, "$host port $port: $failed" if defined $failed;
        $self->{peer} = ($host =~ /:/ ? "[$host]" : $host) . ":$port";
    }
    _fail(NETFAIL => 'cannot connect to ' . join('; ', @tried) . '; is vmware-authd running there?')
        if !$self->{handle};
    $self->_banner;
    $self->_login($who{username}, $who{password});
    my $line = $self->_ask('GLOBAL server');
    _refused($line) if $line !~ /^200 /;
    return $self;
}

# Starts the clock of a call.
sub begin {
    my ($self, $milliseconds) = @_;
    $self->{limit} = $milliseconds;
    $self->{deadline} = _now() + $milliseconds / 1000;
    return;
}

sub _now { return Time::HiRes::clock_gettime(Time::HiRes::CLOCK_MONOTONIC()) }

# Which process and thread made the connection: in others it is a copy, and two may not share it.
sub _owner { return $$ . '.' . ($INC{'threads.pm'} ? threads->tid : 0) }

sub is_mine { my ($self) = @_; return $self->{owner} eq _owner() }

# Whether the other side has not closed, as far as can be told without waiting.
sub is_open {
    my ($self) = @_;
    return 0 if !$self->{handle};
    my $piece = '';
    if ($self->{tls}) {
        my $got = $self->{handle}->peek($piece, 1);
        return defined $got ? $got > 0 : $!{EAGAIN} || $!{EWOULDBLOCK};
    }
    my $got = recv $self->{handle}, $piece, 1, MSG_PEEK | MSG_DONTWAIT;
    return defined $got ? length $piece > 0 : $!{EAGAIN} || $!{EWOULDBLOCK} || $!{EINTR};
}

sub _nonblocking {
    my ($handle) = @_;
    my $flags = fcntl $handle, F_GETFL, 0 or return;
    return fcntl $handle, F_SETFL, $flags | O_NONBLOCK;
}

# Connects one socket; returns nothing, or why not.
sub _attempt {
    my ($self, $family, $address) = @_;
    socket my $handle, $family, SOCK_STREAM, 0 or return "$!";
    _nonblocking($handle) or return "$!";
    while (!connect $handle, $address) {
        if ($!{EINPROGRESS} || $!{EINTR}) {
            $self->_wait($handle, 1);
            my $error = unpack 'i', getsockopt($handle, SOL_SOCKET, SO_ERROR);
            last if !$error;
            local $! = $error;
            return "$!";
        }
        return "$!" if !$!{EAGAIN};
        # The queue of a unix socket is full, and select(2) would not wait for room.
        $self->_rest;
        select undef, undef, undef, 0.01;
    }
    $self->{handle} = $handle;
    return;
}

sub _unix {
    my ($self, $path) = @_;
    return 'the path is too long for a socket' if length $path > 107;
    return $self->_attempt(AF_UNIX, pack_sockaddr_un($path));
}

sub _tcp {
    my ($self, $host, $port) = @_;
    my ($error, @found) =
        getaddrinfo($host, $port, { socktype => SOCK_STREAM, protocol => IPPROTO_TCP, flags => AI_NUMERICSERV });
    return "$error" if $error;
    my $failed = 'no address';
    for my $address (@found) {
        $failed = $self->_attempt($address->{family}, $address->{addr});
        if (!defined $failed) {
            setsockopt $self->{handle}, IPPROTO_TCP, TCP_NODELAY, pack('i', 1);
            return;
        }
    }
    return $failed;
}

# Reads the banner, and makes TLS where it is asked for.
sub _banner {
    my ($self) = @_;
    my $line = $self->_line;
    _refused($line) if $line !~ /^220 /;
    _fail(BADVERSION => $line) if $line !~ /^220 VMware Authentication Daemon Version 1\.[0-9]/;
    return if $line !~ /SSL Required/;
    _fail(BADRESPONSE => 'bytes between the banner and TLS') if length $self->{buffer};
    my $peer = $self->{peer} || 'the unix socket';
    # The hooks of the script are not for a module that may be missing.
    my $loaded = do { local ($@, $SIG{__DIE__}); eval { require IO::Socket::SSL; 1 } };
    _fail(NETFAIL => "$peer wants TLS, for which the Perl module IO::Socket::SSL is missing (Debian: libio-socket-ssl-perl)")
        if !$loaded;
    my $tls = IO::Socket::SSL->start_SSL(
        $self->{handle},
        # Trust is a matter of the fingerprint below, before any name or password is sent.
        SSL_verify_mode => IO::Socket::SSL::SSL_VERIFY_NONE(),
        SSL_version     => 'SSLv23:!SSLv2:!SSLv3:!TLSv1:!TLSv1_1',
        Timeout         => $self->_rest,
    );
    if (!$tls) {
        $self->_rest;
        my $why = $IO::Socket::SSL::SSL_ERROR || $!;
        _fail(NETFAIL => "TLS with $peer: $why");
    }
    $self->{handle} = $tls;
    $self->{tls} = 1;
    _nonblocking($tls);
    my $fingerprint = $tls->get_fingerprint('sha256') || '';
    $fingerprint =~ s/^sha256\$/sha256:/ or _fail(NETFAIL => "TLS with $peer: no certificate");
    my $file = VMware::VmPerl::KnownHosts::file(environment());
    my ($complaint, $changed) = VMware::VmPerl::KnownHosts::check($file, $peer, lc $fingerprint);
    return if !defined $complaint;
    # Nobody stands between this machine and itself: there a file that cannot be written is no reason
    # to stop. Another certificate is.
    return if !$changed && $peer =~ /^(?:127\.[0-9.]+|\[::1\]|localhost):/;
    return _fail(NETFAIL => $complaint);
}

# Names and passwords on the wire: `%` and control characters as %XX.
sub _escaped {
    my ($name, $value) = @_;
    my $bytes = VMware::VmPerl::Reply::octets($name, $value);
    _fail(INVALIDARGS => "$name: a NUL, CR or LF") if $bytes =~ /[\0\r\n]/;
    $bytes =~ s/([%\x01-\x1f\x7f])/sprintf '%%%02X', ord $1/ge;
    return $bytes;
}

sub _login {
    my ($self, $user, $password) = @_;
    my $line;
    if (defined $user && length $user) {
        $line = $self->_ask('USER ' . _escaped(username => $user));
        _refused($line) if $line !~ /^331 /;
        $line = $self->_ask('PASS ' . _escaped(password => defined $password ? $password : ''));
    }
    else {
        $line = $self->_ask('LOCAL');
    }
    _refused($line) if $line !~ /^230 /;
    return;
}

# A line of the gateway that was not hoped for.
sub _refused {
    my ($line) = @_;
    my ($code) = $line =~ /^([0-9]{3}) /;
    $code = '' if !defined $code;
    return _fail(NOACCESS => $line) if $code eq '530' || $code eq '550';
    return _fail(TIMEOUT => $line) if $code eq '421';
    return _fail(BADSTATE => $line) if $code eq '514';
    return _fail(NOSUCHVM => $line) if $code eq '551';
    return _fail(VMBUSY => $line) if $code eq '552';
    return _fail(BADRESPONSE => $line);
}

sub _ask {
    my ($self, $command) = @_;
    $self->_write("$command\r\n");
    return $self->_line;
}

# One line of the gateway, without its end. Nothing it says is longer, so nothing longer is kept.
sub _line {
    my ($self) = @_;
    my $end;
    while (($end = index $self->{buffer}, "\n") < 0) {
        _fail(BADRESPONSE => 'a line of more than ' . $MAX_LINE . ' bytes') if length $self->{buffer} > $MAX_LINE;
        $self->_more;
    }
    my $line = substr $self->{buffer}, 0, $end + 1, '';
    $line =~ s/\r?\n\z//;
    # The text goes into messages: no control characters there.
    $line =~ s/([\x00-\x1f\x7f])/sprintf '%%%02X', ord $1/ge;
    return $line;
}

# Sends a request and returns the reply to it, as text.
sub exchange {
    my ($self, $xml, $milliseconds) = @_;
    $self->begin($milliseconds);
    _fail(GARBAGE => 'bytes that belong to no request') if $self->{buffer} =~ /[^\s\0]/;
    $self->{buffer} = '';
    $self->_write("$xml\n");
    # A reply ends where its root ends; `<` in a text is written `&lt;`.
    my ($from, $end) = (0);
    while (($end = index $self->{buffer}, '</exec>', $from) < 0) {
        my $length = length $self->{buffer};
        _fail(GARBAGE => "a reply of more than $MAX_REPLY bytes") if $length > $MAX_REPLY;
        _fail(GARBAGE => 'it does not start with <exec>')
            if $self->{buffer} =~ /^[\s\0]*[^\s\0<]/ || $self->{buffer} =~ /^[\s\0]*<(?!exec)[^\s]{4}/;
        $from = $length > 6 ? $length - 6 : 0;
        $self->_more;
    }
    my $reply = substr $self->{buffer}, 0, $end + 7, '';
    # Its line end may be here already; if not, the next request takes it for white space.
    $self->{buffer} =~ s/^[\s\0]+//;
    $reply =~ s/^[\s\0]+//;
    return $reply;
}

# Seconds until the deadline; past it the call ends.
sub _rest {
    my ($self) = @_;
    my $rest = $self->{deadline} - _now();
    _fail(TIMEOUT => "no answer within $self->{limit} ms") if $rest <= 0;
    return $rest;
}

# Waits until the socket can be read, or written.
sub _wait {
    my ($self, $handle, $write) = @_;
    while (1) {
        my $bits = '';
        vec($bits, fileno $handle, 1) = 1;
        my $found = select $write ? undef : $bits, $write ? $bits : undef, undef, $self->_rest;
        return if $found > 0;
        _fail(NETFAIL => "select: $!") if $found < 0 && !$!{EINTR};
    }
}

# Whether a TLS call that did not finish waits to write.
sub _wants_write {
    my ($self) = @_;
    return $self->{tls} && ($IO::Socket::SSL::SSL_ERROR || 0) == IO::Socket::SSL::SSL_WANT_WRITE();
}

sub _lost { return _fail(DISCONNECT => "$!") }

# Reads at least one byte more.
sub _more {
    my ($self) = @_;
    while (1) {
        my $got =
            $self->{tls}
            ? $self->{handle}->sysread($self->{buffer}, 65536, length $self->{buffer})
            : sysread $self->{handle}, $self->{buffer}, 65536, length $self->{buffer};
        return if $got;
        _fail(DISCONNECT => 'the other side has closed it') if defined $got;
        next if $!{EINTR};
        _lost() if !$!{EAGAIN} && !$!{EWOULDBLOCK};
        $self->_wait($self->{handle}, $self->_wants_write);
    }
}

sub _write {
    my ($self, $bytes) = @_;
    # A write to a closed connection is an error here, not the end of the script.
    local $SIG{PIPE} = 'IGNORE';
    my $done = 0;
    while ($done < length $bytes) {
        my $wrote =
            $self->{tls}
            ? $self->{handle}->syswrite($bytes, length($bytes) - $done, $done)
            : syswrite $self->{handle}, $bytes, length($bytes) - $done, $done;
        if ($wrote) {
            $done += $wrote;
            next;
        }
        next if $!{EINTR};
        _lost() if !$!{EAGAIN} && !$!{EWOULDBLOCK};
        $self->_wait($self->{handle}, !$self->{tls} || $self->_wants_write);
    }
    return;
}

# Closes. In a process or thread that has only a copy nothing is said to the other side.
sub hang_up {
    my ($self) = @_;
    my $handle = delete $self->{handle} or return;
    local ($@, $!, $?, $SIG{__DIE__});
    local $SIG{PIPE} = 'IGNORE';
    if ($self->{tls}) {
        eval { $handle->close(SSL_no_shutdown => $self->is_mine ? 0 : 1, SSL_fast_shutdown => 1) };
    }
    else {
        close $handle;
    }
    return;
}

sub DESTROY { my ($self) = @_; $self->hang_up; return }

1;

__END__

=head1 NAME

VMware::VmPerl::Wire - the connection to vmware-authd and the server

=head1 DESCRIPTION

Inner part of L<VMware::VmPerl>; see there for where it connects to and which settings it reads.

=cut
