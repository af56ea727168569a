package VMware::VmPerl::Object;

# What a server object and a virtual machine object have in common: a connection of their own, the
# last error, the time-out.
#
# Every public method runs inside _run: success sets the last error to (0, ''), a failure is kept and
# the method returns undef. A failure of the connection itself closes it.

use strict;
use warnings;

use Scalar::Util ();

use VMware::VmPerl::Constants ();
use VMware::VmPerl::Reply ();
use VMware::VmPerl::Wire ();

our $VERSION = '1.0.0';

# Milliseconds that a call may take, unless set_timeout says otherwise.
my $DEFAULT_TIMEOUT = 120_000;

# After these the state of the connection is unknown: a late reply would be taken for the next one.
my %CLOSES = map { $VMware::VmPerl::Constants::VALUE{"VM_E_$_"} => 1 } qw(NETFAIL TIMEOUT DISCONNECT GARBAGE);

my $GARBAGE = $VMware::VmPerl::Constants::VALUE{VM_E_GARBAGE};

sub _fail { my (@what) = @_; return VMware::VmPerl::Constants::fail(@what) }

# The arguments of a constructor without the class that a call as a method puts in front.
sub _arguments {
    my ($own, @arguments) = @_;
    my $class = $own;
    if (@arguments && defined $arguments[0]) {
        my $first = $arguments[0];
        if (Scalar::Util::blessed($first) ? $first->isa($own) : !ref $first && UNIVERSAL::isa($first, $own)) {
            $class = ref $first || $first;
            shift @arguments;
        }
    }
    return ($class, @arguments);
}

sub _new {
    my ($class) = @_;
    return bless { error => [ 0, '' ], timeout => $DEFAULT_TIMEOUT }, $class;
}

# Runs the work of a method; returns what it returns.
sub _run {
    my ($self, $work) = @_;
    my ($value, $failure);
    {
        # Neither the script's $@ nor its __DIE__ hook is touched by a failure it gets as a value.
        local ($@, $SIG{__DIE__});
        $failure = $@ || 'unknown' if !eval { $value = $work->(); 1 };
    }
    if (!defined $failure) {
        $self->{error} = [ 0, '' ];
        return $value;
    }
    if (!Scalar::Util::blessed($failure) || !$failure->isa('VMware::VmPerl::Failure')) {
        # The script's own, as from a signal handler that gave up waiting: the reply is still to come.
        $self->_drop;
        die $failure;
    }
    my ($number, $text) = @$failure;
    my $talking = delete $self->{talking} || '';
    $self->_drop if $talking eq 'exchange' && $CLOSES{$number} || $talking eq 'reply' && $number == $GARBAGE;
    $self->{error} = [ $number, $text ];
    return undef;    ## no critic: a value in list context too, as in (name => $vm->get_config('name'))
}

sub _drop {
    my ($self) = @_;
    delete $self->{talking};
    my $wire = delete $self->{wire} or return;
    $wire->hang_up;
    return;
}

# The connection of this process and thread, if there is one.
sub _wire {
    my ($self) = @_;
    my $wire = $self->{wire};
    return $wire && $wire->is_mine ? $wire : undef;
}

sub _connected {
    my ($self) = @_;
    return $self->_wire || _fail(NOTCONNECTED => 'call connect first');
}

# Logs in as the parameters say. What is needed of them is copied: they may go before the object.
sub _log_in {
    my ($self, $params) = @_;
    _fail('ALREADYCONNECTED') if $self->_wire;
    _fail(INVALIDARGS => 'connect takes a VMware::VmPerl::ConnectParams')
        if !Scalar::Util::blessed($params) || !$params->isa('VMware::VmPerl::ConnectParams');
    my %who = map { $_ => $params->{$_} } qw(hostname port username password);
    $who{port} = 0 if !defined $who{port} || !length $who{port};
    _fail(INVALIDARGS => "port: $who{port} is none") if $who{port} !~ /^[0-9]{1,5}$/ || $who{port} > 65_535;
    if (defined $who{hostname}) {
        $who{hostname} = VMware::VmPerl::Reply::octets(hostname => $who{hostname});
        _fail(INVALIDARGS => 'hostname: a control character or a space') if $who{hostname} =~ /[\x00-\x20\x7f]/;
    }
    $self->{wire} = VMware::VmPerl::Wire->open_session($self->{timeout}, %who);
    return 1;
}

# Sends a request as it is; returns the reply as it is.
sub _exchange {
    my ($self, $xml) = @_;
    my $wire = $self->_connected;
    $self->{talking} = 'exchange';
    my $reply = $wire->exchange($xml, $self->{timeout});
    delete $self->{talking};
    return $reply;
}

# An operation: its name, then pairs of element name and value. Returns the element `out`.
sub _operation {
    my ($self, $op, @pairs) = @_;
    my $reply = $self->_exchange(VMware::VmPerl::Reply::request($op, @pairs));
    # A reply that is no reply says nothing about where the next one starts.
    $self->{talking} = 'reply';
    my $out = VMware::VmPerl::Reply::out($reply);
    delete $self->{talking};
    return $out;
}

sub disconnect {
    my ($self) = @_;
    $self->_drop;
    $self->{error} = [ 0, '' ];
    return 1;
}

# True or undef; leaves the last error alone.
sub is_connected {
    my ($self) = @_;
    my $wire = $self->_wire;
    return 1 if $wire && $wire->is_open;
    $self->_drop if $wire;
    return undef;    ## no critic: scripts ask defined($server->is_connected())
}

sub get_last_error {
    my ($self) = @_;
    return wantarray ? @{ $self->{error} } : $self->{error}[0];
}

# set_timeout($milliseconds), or set_timeout(VM_TIMEOUT_ID, $milliseconds).
sub set_timeout {
    my ($self, @values) = @_;
    return $self->_run(sub {
        my ($id, $milliseconds) = @values > 1 ? @values : (1, @values);
        _fail(INVALIDARGS => 'time-out: the id is VM_TIMEOUT_ID')
            if !defined $id || $id ne $VMware::VmPerl::Constants::VALUE{VM_TIMEOUT_ID};
        _fail(INVALIDARGS => 'time-out: 1 to 86400000 milliseconds')
            if !defined $milliseconds || $milliseconds !~ /^[0-9]{1,8}$/
            || $milliseconds < 1 || $milliseconds > 86_400_000;
        $self->{timeout} = $milliseconds + 0;
        return 1;
    });
}

sub get_timeout { my ($self) = @_; return $self->{timeout} }

# Letting go of the object disconnects.
sub DESTROY {
    my ($self) = @_;
    $self->_drop;
    return;
}

1;

__END__

=head1 NAME

VMware::VmPerl::Object - what Server and VM objects have in common

=head1 DESCRIPTION

Inner part of L<VMware::VmPerl>: C<disconnect>, C<is_connected>, C<get_last_error>, C<set_timeout> and
C<get_timeout>, described in L<VMware::VmPerl/OBJECTS>.

=cut
